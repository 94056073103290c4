# SPDX-License-Identifier: Apache-2.0
"""A drill of a sample: chosen by the operator, verified in a real throw-away daemon."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.operators.sample import DockerBackupSampleOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.operators.context import context

pytestmark = pytest.mark.usefixtures("connections")


def sample(repository: str, **options: Any) -> list[dict[str, Any]]:
    """Draw a sample as a task does after its templates were rendered."""
    operator = DockerBackupSampleOperator(task_id="sample", repository=repository, **options)
    operator.render_template_fields({"run_id": "run-1"}, operator.get_template_env())
    chosen: list[dict[str, Any]] = operator.execute(context(task_id="sample"))
    return chosen


def save(repository: str, image: str) -> str:
    """Save one of the lab's images and return the backup's id."""
    operator = DockerSaveOperator(
        task_id=f"save-{image.replace('/', '-').replace(':', '-')}",
        dockerbackup_conn_id="docker_host_1",
        image=image,
        repository=repository,
    )
    return str(operator.execute(context(task_id=operator.task_id))["backup_id"])


def test_a_sample_says_why_and_how_each_is_to_be_verified(repository_url: str) -> None:
    """Templated numbers are taken; only names that match are to be run."""
    ids = [save(repository_url, image) for image in ("lab/base:1", "lab/app:1")]
    chosen = sample(repository_url, newest="1", oldest=1, random="0", run_names=["lab/a*"])
    assert [(each["backup_id"], each["reason"], each["level"]) for each in chosen] == [
        (ids[1], "newest", "run"),
        (ids[0], "oldest", "load"),
    ]
    assert chosen[0]["host"]
    assert (chosen[0]["kind"], chosen[0]["source"]) == ("image", "lab/app:1")


def test_a_drill_of_nothing_is_an_error_unless_it_may_be(repository_url: str) -> None:
    """A drill that maps over nothing would succeed without proving anything."""
    save(repository_url, "lab/base:1")
    with pytest.raises(AirflowFailException, match=r"no backup .* matches .*allow_empty"):
        sample(repository_url, names=["no-such*"])
    assert sample(repository_url, names=["no-such*"], allow_empty=True) == []


@pytest.mark.parametrize("options", [{"newest": "many"}, {"run_names": "lab/*"}, {"names": "lab/*"}, {"random": -1}])
def test_bad_parameters_are_named(repository_url: str, options: dict[str, Any]) -> None:
    """Before the repository is asked."""
    with pytest.raises(AirflowFailException, match=next(iter(options))):
        sample(repository_url, **options)
