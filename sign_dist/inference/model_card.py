"""MODEL_CARD.md: what a model is, how good it is, for whom, and what it must not be used for; from the facts of a report.

The sections follow Mitchell et al. (2019), "Model Cards for Model Reporting". Nothing is claimed that the report does not hold:
what is not known is said to be not known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sign_dist.inference.units import value_of

WHAT = {
    "islr": "names the one sign that a short clip shows, out of a closed vocabulary (isolated sign recognition)",
    "vlm": "writes the gloss of the one sign that a short clip shows, held to a closed vocabulary (isolated sign recognition by a "
    "vision-language model)",
    "cslr": "writes the glosses of a clip in the order they are signed, out of a closed vocabulary (continuous sign recognition)",
    "slt": "translates a signed sentence into written text (sign language translation)",
}
USES = {
    "islr": "Search in recordings of single signs, exercises with feedback on the sign meant, research on isolated recognition.",
    "vlm": "Search in recordings of single signs, exercises with feedback on the sign meant, research on isolated recognition.",
    "cslr": "Drafts of gloss annotation that a person corrects, search in recordings, research on continuous recognition.",
    "slt": "Drafts of translations that a person who knows both languages corrects, research on translation.",
}
NOT_FOR = (
    "medical, legal, police or emergency communication, or any other place where a mistake harms someone",
    "replacing an interpreter",
    "judging how well a person signs",
    "finding out who a signer is, or watching people who have not agreed to it",
)
LIMITS = {
    "islr": "A clip with another sign than those of the vocabulary is answered with one of them all the same.",
    "vlm": "A clip with another sign than those of the vocabulary is answered with one of them all the same. What the base model "
    "learned elsewhere is not known here, and neither are its biases.",
    "cslr": "A sign outside the vocabulary is left out or taken for another; glosses lose what mouth, face and space say.",
    "slt": "A fluent sentence may say something that was not signed: fluency is no sign of being right.",
}


def model_card(report: Mapping[str, Any] | None, *, title: str, facts: Mapping[str, Any] | None = None, task: str = "") -> str:
    """The card as Markdown. Without a report it says that the model was not evaluated; `facts` and `task` then say the rest."""
    known: Mapping[str, Any] = facts or (report or {}).get("facts", {})
    task = task or (report or {}).get("task", "islr")
    lines = [f"# {_plain(title)}", "", f"A model that {WHAT[task]}.", ""]
    lines += _scores(report) if report else ["## Scores", "", "Not evaluated: nothing is known of how good it is.", ""]
    if report:
        lines += _signers(report)
    lines += _data(known)
    lines += _training(known, (report or {}).get("training") or {})
    lines += [
        "## Intended use",
        "",
        USES[task],
        "",
        "**Not for:**",
        "",
        *(f"- {use};" for use in NOT_FOR[:-1]),
        f"- {NOT_FOR[-1]}.",
        "",
    ]
    lines += ["## Limits", "", *(f"- {_plain(_sentence(text))}" for text in _limits(report, task)), ""]
    lines += _origin(known, report)
    return "\n".join(lines).rstrip() + "\n"


def search_section(search: Mapping[str, Any]) -> str:
    """How the settings were found, as a section behind the others; nothing of a model that was not searched for."""
    if not search:
        return ""
    rows = [(name.replace("_", " "), _plain(_flat(value))) for name, value in search.items() if value not in (None, "", {}, [])]
    return "\n".join(["", "## Search", "", *_table(("", ""), rows)]) + "\n"


def _flat(value: Any) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{name} = {_flat(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(_flat(inner) for inner in value)
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)


def _scores(report: Mapping[str, Any]) -> list[str]:
    split = report["facts"].get("split", {}).get("evaluated", "")
    rows = [
        [
            f"{s['title']} ({'higher' if s['higher_is_better'] else 'lower'} is better)",
            value_of(s["unit"], s["value"]),
            f"{value_of(s['unit'], s['interval']['low'])} to {value_of(s['unit'], s['interval']['high'])}",
            f"`{s['signature']}`",
        ]
        for s in report["scores"]
    ]
    where = f"{report['clips']} clips" + (f" of the split `{split}`" if split else "")
    found = [f"## Scores on {where}", "", *_table(("score", "value", "95 % interval", "how it was counted"), rows), ""]
    if report["failed"]:
        found += [f"{report['failed']} clips gave no answer and count as wrong.", ""]
    if latency := report.get("latency"):
        found += [
            f"From features to answer: median {latency['median_ms']:.3g} ms, 95 % of clips within {latency['p95_ms']:.3g} ms"
            f"{_device(report['facts'])}.",
            "",
        ]
    return found


def _signers(report: Mapping[str, Any]) -> list[str]:
    main = report["scores"][0]
    rows = [row for row in report["signers"] if row.get(main["name"]) is not None]
    if len(rows) < 2:
        return ["## By signer", "", "The scores are of one signer, or the signers are not known: how others fare is not known.", ""]
    values = sorted((row[main["name"]], row["signer"] or "(unknown)", row["clips"]) for row in rows)
    best, worst = (values[-1], values[0]) if main["higher_is_better"] else (values[0], values[-1])
    found = [
        "## By signer",
        "",
        f"{len(rows)} signers; {main['title']} from {value_of(main['unit'], worst[0])} ({_plain(worst[1])}, {worst[2]} clips) "
        f"to {value_of(main['unit'], best[0])} ({_plain(best[1])}, {best[2]} clips).",
        "",
    ]
    if interval := report["intervals"].get(f"{main['name']}_by_signer"):
        low, high = value_of(main["unit"], interval["low"]), value_of(main["unit"], interval["high"])
        found += [f"For new signers like these: {low} to {high} ({interval['method']}).", ""]
    return found


def _data(facts: Mapping[str, Any]) -> list[str]:
    data, split = facts.get("dataset", {}), facts.get("split", {})
    clips = split.get("clips") or data.get("counts") or {}
    rows = [
        ("corpus", data.get("title") or data.get("corpus") or data.get("name")),
        ("sign language", data.get("language")),
        ("written language", data.get("text_language")),
        ("licence", data.get("licence") or "not recorded: find out what it allows before you share the model"),
        ("origin", data.get("origin")),
        ("clips", ", ".join(f"{name} {count}" for name, count in clips.items())),
        ("split policy", split.get("policy")),
        ("privacy", data.get("privacy")),
        ("dataset digest", data.get("dataset digest") or data.get("digest")),
    ]
    return ["## Data", "", *_table(("", ""), [(name, _plain(value)) for name, value in rows if value]), ""]


def _training(facts: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    training, size, decode = facts.get("training", {}), facts.get("size", {}), facts.get("decode", {})
    minutes = trained.get("seconds", 0) / 60
    rows = [
        ("model", facts.get("model", {}).get("kind")),
        ("parameters", f"{size['parameters']:,}" if size.get("parameters") else ""),
        ("size of the weights", f"{size['weights_bytes'] / 1e6:.1f} MB" if size.get("weights_bytes") else ""),
        ("features", facts.get("features", {}).get("name") or facts.get("features", {}).get("features", {}).get("kind")),
        ("started from", training.get("started from")),
        ("trained", f"{trained['epochs']:g} epochs, {minutes:.3g} minutes" if trained else ""),
        (
            "checkpoint",
            f"{training['checkpoint']}, chosen by {training.get('chosen by', '?')}" if training.get("checkpoint") else "",
        ),
        ("decoding", ", ".join(f"{name} {value}" for name, value in decode.items())),
    ]
    return ["## Model", "", *_table(("", ""), [(name, _plain(value)) for name, value in rows if value]), ""]


def _limits(report: Mapping[str, Any] | None, task: str) -> list[str]:
    found = [*(report or {}).get("warnings", ()), LIMITS[task]]
    found.append(
        "What signers of other regions, ages, skin colours or clothes meet, and other cameras and light, is known only as far as "
        "the data has them"
    )
    return found


def _origin(facts: Mapping[str, Any], report: Mapping[str, Any] | None) -> list[str]:
    rows = list((report or {}).get("digests", {}).items())
    if run := facts.get("training", {}).get("run digest"):
        rows = [("run digest", run), *(row for row in rows if row[1] != run)]
    if weights := facts.get("size", {}).get("weights_sha256"):
        rows.append(("weights sha256", weights))
    if version := facts.get("software", {}).get("sign_dist"):
        rows.append(("sign_dist", version))
    return ["## Digests", "", *_table(("", ""), [(name, f"`{_plain(value)}`") for name, value in rows]), ""] if rows else []


def _device(facts: Mapping[str, Any]) -> str:
    timing = facts.get("timing")
    return f" ({timing['device']}, {timing['threads']} thread{'s' if timing['threads'] != 1 else ''} per process)" if timing else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [list(header), ["---"] * len(header), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _plain(value: Any) -> str:
    """Text that Markdown takes as text: names of clips and signers come from strangers."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]<>#":
        text = text.replace(character, "\\" + character)
    return text
