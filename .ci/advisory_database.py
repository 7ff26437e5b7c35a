"""Lays the advisories of a file out as a RustSec database, which is a git repository: cargo deny reads those."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def main(file: str, directory: Path):
    advisories = tomllib.loads(Path(file).read_text())["advisory"]
    shutil.rmtree(directory, ignore_errors=True)
    for advisory in advisories:
        if not re.fullmatch(r"RUSTSEC-\d{4}-\d{4}", advisory["id"]):
            sys.exit(f"{file}: {advisory['id']} is no id")
        lines = ["[advisory]", f"date = \"{advisory['id'][8:12]}-01-01\""]
        lines += [f"{key} = {json.dumps(advisory[key])}" for key in ("id", "package", "informational") if key in advisory]
        lines += ["[versions]"]
        lines += [f"{key} = {json.dumps(advisory[key])}" for key in ("patched", "unaffected") if key in advisory]
        path = directory / "crates" / advisory["package"] / f"{advisory['id']}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("```toml\n" + "\n".join(lines) + f"\n```\n\n# {advisory['title']}\n")
    git = ["git", "-C", directory, "-c", "user.name=ci", "-c", "user.email=ci@localhost"]
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "--all"], ["commit", "--quiet", "-m", "advisories"]):
        subprocess.run([*git, *command], check=True)
    print(f"{len(advisories)} advisories")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
