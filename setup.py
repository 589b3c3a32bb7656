"settings.ini describes the package; this file hands the description to setuptools."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser()
parser.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
settings = parser["DEFAULT"]

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
# PyPI cannot follow links into the repository
for start, kind in ((r"(!\[[^]]*\]\()", "raw"), (r"((?<!!)\[[^]]*\]\()", "blob")):
    readme = re.sub(rf"{start}(?!\w+:|#)", rf"\1{settings['git_url']}/{kind}/{settings['branch']}/", readme)

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    project_urls={"Changelog": f"{settings['git_url']}/blob/{settings['branch']}/CHANGELOG.md",
                  "Documentation": settings["doc_host"] + settings["doc_baseurl"]},
    license=settings["license"].upper(),
    keywords=settings["keywords"].split(),
    packages=find_packages(include=["highlight_sense*"]),
    package_data={"highlight_sense": ["py.typed", "templates/*", "starter.*", "taste.pt"],
                  "highlight_sense.kernels": ["*.c"]},
    python_requires=f">={settings['min_python']},<3.14",  # OpenTimelineIO has no wheel for 3.14
    install_requires=settings["requirements"].split(),
    extras_require={name.removesuffix("_requirements"): value.split() for name, value in settings.items()
                    if name.endswith("_requirements")},
    entry_points={"console_scripts": settings["console_scripts"].split(),
                  "nbdev": [f"{settings['lib_path']}={settings['lib_path']}._modidx:d"]},
)
