"Text files are the same on every system."
import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def calls_without_encoding(path: Path) -> list[str]:
    "List the calls in a file that read or write text in the encoding of the system."
    found = []
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords): continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        binary = any("b" in ast.unparse(mode) for mode in call.args[1:2])
        opens = isinstance(call.func, ast.Name) and name == "open" and not binary
        if opens or (isinstance(call.func, ast.Attribute) and name in ("read_text", "write_text")):
            found.append(f"{path.name}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_text_has_an_encoding():
    "On Windows a text file is cp1252 unless its encoding is given, and most names do not fit into that."
    places = [*(ROOT/"highlight_sense").rglob("*.py"), *(ROOT/"tools").glob("*.py")]
    assert len(places) > 100
    assert not [line for path in places for line in calls_without_encoding(path)]


def test_each_such_call_is_noticed(tmp_path):
    "The test above would fail for any of these."
    calls = ('open("a")', 'open("a", "w")', 'path.read_text()', 'path.write_text("a")')
    fine = ('open("a", "rb")', 'open("a", encoding="utf-8")', 'path.read_text(encoding="utf-8")', 'read_text(path)')
    (tmp_path/"calls.py").write_text("\n".join((*calls, *fine)), encoding="utf-8")
    assert len(calls_without_encoding(tmp_path/"calls.py")) == len(calls)
