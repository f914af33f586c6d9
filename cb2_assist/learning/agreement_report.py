"""``agreement.md``, made from ``agreement.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cb2_assist.learning.evaluation_report import cell, figure, table

Entry = dict[str, Any]

_PARTS = {"all": "all", "score_shown": "score on screen", "score_hidden": "score hidden"}


def agreement_report(result: Entry) -> str:
    """Markdown of a document of `agreement.agreement`."""
    return "\n".join([*_head(result), *_sections(result), *_tail(result)]) + "\n"


def _head(result: Entry) -> Iterator[str]:
    yield from ("# Agreement", "")
    whole = result["all"]
    yield (
        f"{whole['n_ratings']} answers of {len(result['people'])} people on {whole['n_items']} "
        f"sites; {whole['n_overlapping']} sites were answered by two people or more, and on "
        f"{whole['n_disagree']} of those they differ. An answer is accept or reject; of one "
        "person's answers on a site the last counts."
    )
    yield ""
    yield from (f"- labels: {cell(url)}" for url in result["labels"])
    for dataset, versions in result["versions"].items():
        yield f"- dataset: {cell(dataset)}, version {cell(', '.join(versions))}"
    yield f"- intervals: {result['interval']['what']}, {result['interval']['draws']} draws"
    yield from (f"- {cell(note)}" for note in result["notes"])
    yield ""


def _sections(result: Entry) -> Iterator[str]:
    whole = {"all": result["all"]} if len(result["by_kind"]) != 1 else {}
    for title, entry in {**whole, **result["by_kind"]}.items():
        yield from (f"## {title}", "")
        yield from table(
            ("sites of two people or more", "agreement", "Fleiss' kappa", "Krippendorff's alpha"),
            [
                (
                    str(entry["n_overlapping"]),
                    *(
                        figure(entry[k])
                        for k in ("agreement", "fleiss_kappa", "krippendorff_alpha")
                    ),
                )
            ],
        )
        if entry["pairs"]:
            yield from table(
                ("people", "n", "agreement", "Cohen's kappa", "accepts only", "McNemar p"),
                [_row(f"{cell(p['first'])} / {cell(p['second'])}", p) for p in entry["pairs"]],
            )
        rows = [
            _row(f"{cell(who['person'])} / model, {_PARTS[part]}", who[part])
            for who in entry["with_model"]
            for part in _PARTS
            if who[part]["n"]
        ]
        yield from table(
            ("against the model", "n", "agreement", "Cohen's kappa", "accepts only", "McNemar p"),
            rows,
        )


def _row(who: str, entry: Entry) -> tuple[str, ...]:
    test = entry["mcnemar"]
    return (
        who,
        str(entry["n"]),
        figure(entry["agreement"]),
        figure(entry["cohen_kappa"]),
        f"{test['only_first_accepts']} / {test['only_second_accepts']}",
        f"{test['p']:.3g}",
    )


def _tail(result: Entry) -> Iterator[str]:
    found = result["consensus"]
    yield from ("## Consensus", "")
    yield (
        f"{found['n']} sites: {found['accept']} accept, {found['reject']} reject, {found['tie']} "
        f"tie ({found['rule']}). {result['disagreements']} sites are open at the desk of "
        "disagreements or not yet on it."
    )
    yield ""
    if result["left_out"]:
        yield from ("## Left out", "")
        yield from table(
            ("why", "answers"), [(cell(w), str(n)) for w, n in result["left_out"].items()]
        )
    yield from ("## How to read this", "")
    yield (
        "The model accepts where its score, as it stood when the person answered, is above one "
        "half. Kappa and alpha are 0 for the agreement of chance and 1 for full agreement; a dash "
        "stands where chance alone would always agree. Where everybody agreed on every site the "
        "interval has no width, whatever n is. *Accepts only* counts sites that the first or the "
        "second alone accepts: McNemar's exact test asks whether these are split evenly. Answers "
        "given at the desk of disagreements are not independent: they count for the consensus "
        "alone."
    )
