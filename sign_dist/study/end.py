"""What a study leaves when its last trial has ended: best.json, study.json with all rows, study.html, a picture, HParams."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.study.hparams import write_hparams
from sign_dist.study.layout import StudyDir
from sign_dist.study.page import write_page
from sign_dist.study.plot import plot_study
from sign_dist.study.rows import TrialRow, best_of, rows_of
from sign_dist.tasks.build import monitor_of


def end_study(study: StudyDir, rows: Sequence[TrialRow], *, seconds: float) -> dict[str, Any]:
    """Write what the study has found; answers best.json.

    Raises:
        RunError: no trial ended well.
    """
    best = best_of(rows)
    if best is None:
        reasons = "; ".join(sorted({row.reason for row in rows if row.reason})[:3]) or "none was started"
        raise RunError(
            f"no trial of {str(study.root)!r} ended well ({reasons}): lower the learning rates of the space, "
            "or look at the logs in tune/"
        )
    facts = study.facts()
    epochs = facts["run"]["train"]["epochs"]
    answer = {
        "trial": best.id,
        "run_dir": f"trial_{best.id}",
        "value": best.value,
        "objectives": best.objectives,
        "settings": best.settings,
        "num_trials": len(rows),
        "epochs_trained": sum(row.epochs for row in rows),
        "epochs_without_stopping": epochs * len(rows),
    }
    write_json(study.best_file, answer)
    monitor = monitor_of(Run.from_tree(facts["run"]))
    plain = [row.to_dict() for row in rows]
    plot_study(plain, study.picture_file, metric=monitor.name, mode=monitor.mode)
    write_json(study.study_file, facts | {"finished": True, "seconds": round(seconds, 1), "trials": plain})
    show_study(study)
    return answer


def show_study(study: StudyDir) -> Path:
    """Write study.html, and for TensorBoard what each trial tried, as the study is now; answers the page's path.

    Raises:
        RunError: no study lives there.
    """
    write_hparams(study, rows_of(study))
    return write_page(study)
