"""What a registry shows that depends on where the repository is public: addresses, the README.

`git_url` of settings.ini says where; while it is empty no address is made up, and the links of the
README, which lead to files of the repository, are left out.
"""
import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?:|#)([^()\s]+)\)") # to a file of the repository
PAGE = "https://github.com/tensorflow/models/tree/master/official/projects/edgetpu/vision"
ORIGINAL = {"Reproduced project": PAGE, "Reproduced paper": "https://arxiv.org/abs/2204.14007"}


def long_description(text: str, url: str, branch: str = "main") -> str:
    "The README with links that lead somewhere from anywhere."
    def absolute(found):
        picture, words, path = found.groups()
        if url: return f"{picture}[{words}]({url}/{'raw' if picture else 'blob'}/{branch}/{path})"
        return "" if picture else words

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(absolute, text))


def addresses(url: str, branch: str = "main") -> dict:
    "The project's addresses; without `url` only those of what it reproduces."
    if not url: return ORIGINAL
    changes = f"{url}/blob/{branch}/CHANGELOG.md"
    return {"Source": url, "Issues": f"{url}/issues", "Changelog": changes, **ORIGINAL}


def public() -> tuple: # (address without a slash at its end, or nothing; branch)
    "Where settings.ini says that the repository is."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini")
    default = settings["DEFAULT"]
    return re.sub(r"(\.git)?/*$", "", default.get("git_url") or ""), default.get("branch", "main")


if __name__ == "__main__":
    setup(
        long_description=long_description((ROOT / "README.md").read_text(), *public()),
        long_description_content_type="text/markdown",
        project_urls=addresses(*public()),
    )
