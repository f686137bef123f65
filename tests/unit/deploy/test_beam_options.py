"""Options of Beam: careful defaults, and refusals before anything is sent."""

from __future__ import annotations

import pytest

from mainspring.core.errors import Invalid
from mainspring.deploy.engines.beam_options import LOCAL, beam_options

DATAFLOW = (
    "--runner=DataflowRunner --project=shop --region=europe-west4 --temp_location=gs://shop-batch/beam "
    "--service_account_email=batch@shop.iam.gserviceaccount.com --sdk_container_image=europe-docker.pkg.dev/shop/b:1 "
    "--max_num_workers=12"
)


@pytest.mark.parametrize("text", ["", "--runner=DirectRunner", "--runner=direct", "--runner=FnApiRunner"])
def test_a_local_run_is_in_this_process(text: str) -> None:
    found = beam_options(text, 3)
    assert (found.local, found.workers, found.temp) == (True, 3, "")
    assert set(found.words) == {"--direct_num_workers=3", f"--runner={LOCAL}", "--direct_running_mode=multi_threading"}
    assert "--direct_running_mode=in_memory" in beam_options(f"{text} --direct_num_workers=1", 3).words


@pytest.mark.parametrize("runner", ["DataflowRunner", "dataflow", "apache_beam.runners.dataflow.DataflowRunner"])
def test_workers_of_dataflow_have_no_public_address_unless_told(runner: str) -> None:
    text = DATAFLOW.replace("DataflowRunner", runner)
    found = beam_options(text.replace("/beam", "/beam/"), 2)
    assert (found.local, found.workers, found.temp) == (False, 12, "gs://shop-batch/beam")
    assert "--no_use_public_ips" in found.words
    assert "--no_use_public_ips" not in beam_options(f"{text} --use_public_ips", 2).words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *((" ".join(each for each in DATAFLOW.split() if not each.startswith(f"--{name}")), name)
          for name in ("project", "region", "temp_location", "service_account_email", "sdk_container_image",
                       "max_num_workers")),
        (DATAFLOW.replace("gs://shop-batch/beam", "/tmp/beam"), "/tmp/beam"),
        (DATAFLOW.replace("=12", "=0"), "max_num_workers=0"),
        (DATAFLOW.replace("=12", "=many"), "max_num_workers=many"),
        ("--runner=PortableRunner --job_endpoint=localhost:8099", "temp_location"),
        ("--s3_secret_access_key=abc", "s3_secret_access_key"),
        ("--azure_connection_string=abc", "azure_connection_string"),
        ("--save_main_session", "save_main_session"),
        ("--pickle_library=dill", "pickle_library"),
        ("--region=a --region=b", "region"),
        ("DataflowRunner", "DataflowRunner"),
        ("--runner DataflowRunner", "DataflowRunner"),
        ("--a='b", "quot"),
        ("--direct_num_workers=-1", "direct_num_workers=-1"),
    ],
)  # fmt: skip
def test_what_is_missing_or_not_taken_is_named(text: str, told: str) -> None:
    with pytest.raises(Invalid) as raised:
        beam_options(text, 2)
    assert told in f"{raised.value.what} {raised.value.fix}"
    assert raised.value.fix
