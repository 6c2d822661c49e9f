"""TensorBoard's HParams of a study: what each trial tried, beside the curves that its run wrote already.

The dashboard reads one experiment (all settings and metrics there are) and a session per trial, which it joins with the scalars
of the directory that the session stands in. So a session is written into the trial's own `tensorboard/`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2, summary_pb2

from sign_dist.study.importance import as_text, is_number
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import TrialRow, name_of, objectives_of

SUFFIX = ".hparams"
# Made by protobuf when they are imported: no checker of types sees what is in them.
_api: Any = api_pb2
_plugin: Any = plugin_hparams_pb2
_summary: Any = summary_pb2
_event: Any = event_pb2
# Names that the plugin looks for.
EXPERIMENT, START, END = "_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"


def write_hparams(study: StudyDir, rows: Sequence[TrialRow]) -> None:
    """Write the event files anew; those of an earlier call are removed."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    metrics = list(dict.fromkeys(["val/loss", *(name for row in rows for name in _scalars(study, row)), *objectives_of(rows)]))
    plan = _api.Experiment(
        hparam_infos=[
            _api.HParamInfo(name=name, type=_type([row.settings[name] for row in rows if name in row.settings])) for name in names
        ],
        metric_infos=[_api.MetricInfo(name=_api.MetricName(tag=name)) for name in metrics],
    )
    _write(study.root / "hparams", {EXPERIMENT: _plugin.HParamsPluginData(experiment=plan)}, {})
    for row in rows:
        start = _plugin.SessionStartInfo(group_name=name_of(row))
        for name, value in row.settings.items():
            match _type([value]):
                case "DATA_TYPE_BOOL":
                    start.hparams[name].bool_value = value
                case "DATA_TYPE_FLOAT64":
                    start.hparams[name].number_value = value
                case _:
                    start.hparams[name].string_value = as_text(value)
        done = _plugin.SessionEndInfo(status="STATUS_FAILURE" if row.state == "failed" else "STATUS_SUCCESS")
        # A score has its own scalars there; what was measured at the end has none yet.
        measured = {name: value for name, value in row.objectives.items() if not name.startswith("val/")}
        events = {START: _plugin.HParamsPluginData(session_start_info=start), END: _plugin.HParamsPluginData(session_end_info=done)}
        _write(study.trial(row.id).tensorboard, events, measured)


def _write(folder: Path, events: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"*{SUFFIX}"):
        old.unlink()
    # The plain writer of files: the usual one starts a thread and waits for it, too long for hundreds of trials.
    writer = EventsWriter(str(folder / "events"), filename_suffix=SUFFIX)
    for tag, content in events.items():
        data = _summary.SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
        _add(writer, tag=tag, metadata=_summary.SummaryMetadata(plugin_data=data))
    for name, number in scalars.items():
        _add(writer, tag=name, simple_value=number)
    writer.close()


def _add(writer: EventsWriter, **value: Any) -> None:
    summary = _summary.Summary(value=[_summary.Summary.Value(**value)])
    writer.write_event(_event.Event(wall_time=time.time(), step=0, summary=summary))


def _type(values: Sequence[Any]) -> str:
    if all(isinstance(value, bool) for value in values):
        return "DATA_TYPE_BOOL"
    return "DATA_TYPE_FLOAT64" if is_number(values) else "DATA_TYPE_STRING"


def _scalars(study: StudyDir, row: TrialRow) -> list[str]:
    """Scores of val that a trial's record has."""
    lines = study.trial(row.id).metrics()
    return [name for name in lines[-1] if name.startswith("val/")] if lines else []
