"""Print what CHANGELOG.md says about a version: the text of its GitHub release.

    python tools/release_notes.py v0.1.0

It exits with 1 where settings.ini has another version, or the section has no date yet.
"""
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def release_notes(
    changelog: str,  # the text of CHANGELOG.md
    version: str,
) -> str:
    "Return the section of a version, without its heading; `ValueError` unless the heading has a date."
    sections = re.split(r"^## (.+)\n", changelog, flags=re.MULTILINE)
    found = next((at for at in range(1, len(sections), 2) if sections[at].split(" ")[0] == version), None)
    if found is None: raise ValueError(f"CHANGELOG.md: found no section ## {version}, expected one; write it")
    if not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", sections[found]):
        raise ValueError(f"CHANGELOG.md: found ## {sections[found]}, expected ## {version} - and a date; give the date")
    return sections[found + 1].strip() + "\n"


def main() -> None:
    tag, = sys.argv[1:]
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    version = settings["DEFAULT"]["version"]
    if tag != f"v{version}": sys.exit(f"settings.ini: found version {version}, expected that of {tag}; change it")
    try: notes = release_notes((ROOT/"CHANGELOG.md").read_text(encoding="utf-8"), version)
    except ValueError as error: sys.exit(str(error))
    sys.stdout.reconfigure(encoding="utf-8")
    print(notes, end="")


if __name__ == "__main__": main()
