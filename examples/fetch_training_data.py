"""The data behind the shipped model, from where they were published.

What you will see: one line a file as it arrives, then the progress of each dataset, and at the end
the commands that train and measure a model on them. Everything comes from recipe.toml, which names
each file with its SHA-256: a file of other content is thrown away and said. Stopped in the middle,
the same command goes on where it was; files that are there and right are not fetched again.

    python examples/fetch_training_data.py DATA
    python examples/fetch_training_data.py DATA --all

With --all also the datasets that the model was only measured on. Their licences are in recipe.toml
and in each dataset.toml. 17 MB are downloaded, 21 with --all.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from PIL import Image

from cb2_assist import import_volume

RECIPE = Path(__file__).resolve().parent.parent / "models" / "cb2-vit-tiny" / "recipe.toml"
TRIES = 5
AT_ONCE = 4
TIMEOUT_S = 60
CHUNK = 1 << 16
MOST_BYTES = 1 << 30
"""No file of a recipe without its length is larger."""


class FetchError(Exception):
    """Said in one line; the program ends."""


@dataclass(frozen=True)
class Wanted:
    """One file of a recipe.

    Attributes:
        url: http or https.
        path: Where it goes.
        sha256: Hex, or empty when the content is not known.
        bytes: Length, or None.
    """

    url: str
    path: Path
    sha256: str
    bytes: int | None


def main(arguments: list[str]) -> None:
    """Download, check, convert, and print what to do next."""
    parser = argparse.ArgumentParser(
        prog="fetch_training_data.py", description="Fetch what a model was trained on."
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder to make or to go on with")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: the shipped model's")
    parser.add_argument("--all", action="store_true", help="also what is only measured on")
    given = parser.parse_args(arguments)
    try:
        recipe = read_recipe(given.recipe)
        datasets = [d for d in recipe["dataset"] if given.all or d["use"] == "training"]
        used = {name for d in datasets for name in d["sources"]}
        files = [w for w in wanted_files(recipe, given.data / "sources") if w[0] in used]
        fetch_all([w for _, w in files])
        for dataset in datasets:
            make_dataset(dataset, given.data)
    except (FetchError, OSError) as error:
        sys.exit(f"fetch_training_data.py: {error}")
    for command in recipe.get("command", []):
        print(f"\n# {command['what']}")
        print(command["run"].replace("DATA/", f"{given.data}/"))


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} is no recipe: {error}") from error


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe, checked as far as this program relies on it.

    Sources and datasets of one that says ``data_of = "OTHER"`` are those of the recipe at that
    place beside it.
    """
    recipe = _toml(path)
    if "data_of" in recipe:
        other = _toml(path.parent / str(recipe["data_of"]))
        recipe |= {key: other.get(key, []) for key in ("source", "dataset")}
    sources = {s.get("id") for s in recipe.get("source", [])}
    if recipe.get("format") != 1 or not recipe.get("dataset"):
        raise FetchError(f"{path} is no recipe of format 1 with datasets.")
    for dataset in recipe["dataset"]:
        for key in ("name", "use", "sources", "licence", "citation", "em", "segmentation"):
            if not dataset.get(key):
                raise FetchError(f"{path}: dataset {dataset.get('name')!r} has no {key}.")
        unknown = set(dataset["sources"]) - sources
        if unknown:
            raise FetchError(f"{path}: {dataset['name']} needs {unknown}, which is no source.")
    return recipe


def wanted_files(recipe: dict[str, Any], folder: Path) -> Iterator[tuple[str, Wanted]]:
    """Each file of each source, with the source's id."""
    for source in recipe["source"]:
        place = source["id"]
        for file in source.get("file", []):
            path = inside(folder, f"{place}/{file['to']}")
            yield place, Wanted(file["url"], path, file["sha256"], file.get("bytes"))
        for stack in source.get("stack", []):
            for number, sha256 in enumerate(stack["sha256"], stack["first"]):
                path = inside(folder, f"{place}/{stack['to'].format(number=number)}")
                yield place, Wanted(stack["url"].format(number=number), path, sha256, None)


def inside(folder: Path, name: str) -> Path:
    """A path that stays in the folder."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise FetchError(f"The recipe names {name!r}, which leads out of {folder}.")
    return folder.joinpath(*parts)


def fetch_all(files: list[Wanted]) -> None:
    """Fetch what is missing, a few at a time; all faults are told together."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        faults = [fault for fault in pool.map(fetch, files) if fault]
    if faults:
        raise FetchError(
            f"{len(faults)} of {len(files)} files could not be had; the same command tries again.\n"
            + "\n".join(faults)
        )


def fetch(file: Wanted) -> str:
    """Fetch one file unless it is there and right; an empty string, or what went wrong."""
    if not file.url.startswith(("http://", "https://")):
        return f"{file.url}: only http and https are fetched"
    if file.path.is_file() and file.sha256 and sha256_of(file.path) == file.sha256:
        return ""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    part = file.path.with_name(file.path.name + ".part")
    fault = ""
    for attempt in range(TRIES):
        time.sleep(0 if attempt == 0 else min(2.0 ** (attempt - 4), 1.0))
        try:
            receive(file, part)
        except urllib.error.HTTPError as error:
            fault = f"{file.url}: the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                return fault
        except (OSError, HTTPException, FetchError) as error:
            fault = f"{file.url}: {error}"
        else:
            return accept(file, part)
    return fault


def receive(file: Wanted, part: Path) -> None:
    """Fill ``part``, going on behind what an earlier try left there."""
    have = part.stat().st_size if part.is_file() else 0
    if file.bytes is not None and have >= file.bytes:
        if have == file.bytes:
            return
        have = 0
    headers = {"User-Agent": "cb2-assist", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(file.url, headers=headers)  # noqa: S310 - checked in fetch
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # what is there is longer than the file: from an earlier version of it
            part.unlink(missing_ok=True)
            raise FetchError("what was there does not fit any more") from error
        raise
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length is not None else None
        most = file.bytes if file.bytes is not None else MOST_BYTES
        with part.open("ab" if goes_on else "wb") as out:
            while chunk := answer.read(CHUNK):
                have += len(chunk)
                if have > most:
                    raise FetchError(f"more than {most} bytes arrive")
                out.write(chunk)
    for expected in (whole, file.bytes):
        if expected is not None and have != expected:
            raise FetchError(f"only {have} of {expected} bytes arrived")


def accept(file: Wanted, part: Path) -> str:
    """Check what arrived and put it in its place; an empty string, or what is wrong with it."""
    got = sha256_of(part)
    if file.sha256 and got != file.sha256:
        part.unlink()
        return (
            f"{file.url}: SHA-256 is {got}, the recipe says {file.sha256}. The file was changed or "
            "damaged on its way, and was thrown away."
        )
    part.replace(file.path)
    note = "" if file.sha256 else f"  SHA-256 {got} was NOT CHECKED, the recipe has none"
    print(f"{file.path.name}{note}", flush=True)
    return ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_dataset(dataset: dict[str, Any], data: Path) -> None:
    """Convert a dataset's files to arrays and import them; one that is there is left as it is."""
    out = data / dataset["name"]
    file = out / "dataset.toml"
    if not file.is_file():
        arrays = data / "arrays" / dataset["name"]
        arrays.mkdir(parents=True, exist_ok=True)
        for key in ("em", "segmentation", "truth"):
            np.save(arrays / f"{key}.npy", read_array(dataset[key], data / "sources"))
        x, y, z = dataset["voxel_nm"]
        import_volume(
            em=str(arrays / "em.npy"),
            segmentation=str(arrays / "segmentation.npy"),
            truth=str(arrays / "truth.npy"),
            voxel_nm=(x, y, z),
            out=out,
            axes="zyx",
            id_offset=dataset["id_offset"],
            name=dataset["name"],
            species=dataset["species"],
            licence=dataset["licence"],
            citation=dataset["citation"],
            progress=lambda line: print(line, file=sys.stderr),
        )
        shutil.rmtree(arrays)
    made = tomllib.loads(file.read_text(encoding="utf-8"))["dataset"].get("version")
    expected = dataset.get("version")
    if expected and made != expected:
        raise FetchError(
            f"{file} has the segmentation {made}, the recipe's is {expected}: it holds other "
            "voxels or ids. Delete the folder and run this again."
        )
    print(f"{file}: {made}, {dataset['licence']}", flush=True)


def read_array(what: dict[str, Any], sources: Path) -> np.ndarray:
    """One volume, z, y, x, from a file or a stack of images, its ids replaced as asked."""
    if "stack" in what:
        array, pairs = read_stack(sources, what["stack"]), None
    else:
        array, pairs = read_file(inside(sources, what["file"]), what["array"], what.get("map"))
    if pairs is not None:
        array = replace_ids(array, pairs)
    for name in what.get("maps", []):
        rows = np.loadtxt(inside(sources, name), np.int64, ndmin=2)
        if rows.shape[1] == 2:
            array = replace_ids(array, rows)
        else:
            sections = (rows[rows[:, 0] == z, 1:] for z in range(len(array)))
            pages = zip(array, sections, strict=True)
            array = np.stack([replace_ids(page, pairs) for page, pairs in pages])
    return array


def read_stack(sources: Path, pattern: str) -> np.ndarray:
    """Images of a folder whose names fit, in the order of their names."""
    some = inside(sources, pattern.format(number=0))
    before, after = pattern.rsplit("/", 1)[1].split("{")[0], some.suffix
    paths = sorted(some.parent.glob(f"{before}*{after}"))
    if not paths:
        raise FetchError(f"There is no image {before}*{after} in {some.parent}.")
    pages = []
    for path in paths:
        with Image.open(path) as image:
            pages.append(np.array(image))
    return np.stack(pages)


def read_file(path: Path, array: str, pairs: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """An array of .npz, .h5 or .h5.gz, and another one that replaces its ids."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return archive[array], None if pairs is None else archive[pairs]
    if path.suffix == ".gz":
        with gzip.open(path) as packed, h5py.File(packed, "r") as file:
            return file[array][:], None if pairs is None else file[pairs][:]
    with h5py.File(path, "r") as file:
        return file[array][:], None if pairs is None else file[pairs][:]


def replace_ids(array: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Each id by what stands beside it in (from, to) rows; every id must be there."""
    order = np.argsort(pairs[:, 0])
    old, new = pairs[order].T
    place = np.minimum(np.searchsorted(old, array), len(old) - 1)
    if (old[place] != array).any():
        missing = int(array[old[place] != array].flat[0])
        raise FetchError(f"The map of ids does not know {missing}.")
    return np.asarray(new[place], np.uint64)


if __name__ == "__main__":
    main(sys.argv[1:])
