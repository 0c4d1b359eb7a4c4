"""The same experiments over a bucket, against a real S3 protocol server: reached as boto3 would, and no other way."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import duckdb
import duckdb_ext
import polars as pl
import pytest
from obstore.exceptions import GenericError
from pyiceberg.table import StaticTable

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import AllocationError, FetchError, InputError, RunError, ScytheError, StorageError, StorageRefused
from scythe.record import lease
from scythe.remote.fetch import fetch, fetch_all
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference
from scythe_catalog.iceberg import tables
from scythe_catalog.storage import reach
from scythe_catalog.storage.credentials import Keys
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.s3 import S3
from scythe_catalog.storage.s3_errors import attempted
from tests.benches.folder_s3 import FolderS3
from tests.s3_server import KEY, REGION, SECRET, S3Server, s3_server

PART = 8 * 1024 * 1024


class HouseInput(ExperimentInputSpec):
    x: float
    weather: FileReference


class HouseOutput(ExperimentOutputSpec):
    y: float
    report: FileReference


def simulate(input_spec: HouseInput, tempdir: Path) -> HouseOutput:
    """Doubles x; three is too much for it."""
    if input_spec.x == 3:
        raise ValueError("three is too much")
    report = tempdir / "report.txt"
    report.write_text(f"{input_spec.x} in {Path(str(input_spec.weather)).read_text()}")
    monthly = pl.DataFrame({"month": [1, 2], "energy": [input_spec.x, 1.0]})
    return HouseOutput(y=2 * input_spec.x, report=report, dataframes={"monthly": monthly})


@pytest.fixture
def house(tmp_path: Path) -> BaseExperiment:
    """The experiment of these tests, registered."""
    return BaseExperiment(ExperimentRegistry.Register(retries=0)(simulate))


@pytest.fixture
def specs(tmp_path: Path) -> pl.DataFrame:
    """Four inputs with two files of weather; the third input fails."""
    for name in ("rain", "sun"):
        (tmp_path / f"{name}.epw").write_text(name)
    files = [str(tmp_path / f"{name}.epw") for name in ("rain", "sun", "rain", "sun")]
    return pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "weather": files})


def finish(experiment: BaseExperiment, specs: pl.DataFrame, **options: Any) -> scythe.runs.run.ExperimentRun:
    """Allocates, waits for the end, and resumes where the inline engine stopped at an error."""
    try:
        run, ref = experiment.allocate(specs, **options)
    except ValueError:
        run = scythe.open_run(experiment.name)
        ref = run.resume(engine="inline")
    result = ref.result()
    assert (result.rows, result.errors) == (3, 1)
    return run


def seen(run: Any) -> dict[str, list[dict[str, Any]]]:
    """All tables of a run as rows, with what differs between two runs of the same inputs taken out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in ("scalars", "errors", "result_file_refs", "monthly", "tasks"):
        frame = scythe.read(run.experiment, table=table, run=run.key.folder)
        text = json.dumps(frame.drop("seconds", "worker", "start", strict=False).to_dicts(), default=str)
        text = text.replace(run.objects.root, "ROOT").replace(run.key.folder, "RUN")
        text = text.replace(run.workflow_run_id or "-", "WORKFLOW")
        found[table] = json.loads(_UUID.sub("ID", text))
    return found


_STORED_BEFORE = re.compile(r"output/parts/[^/]+\.pq$")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def kept(keys: set[str]) -> set[str]:
    """The keys without the tables' own history: how often rows were stored and shown before the end depends on the clock."""
    parts = (re.sub(r"parts/(\d+)-\d+", r"parts/\1-N", k) for k in keys)
    return {k for k in parts if "/metadata/" not in k and not k.endswith(".shown") and not _STORED_BEFORE.search(k)}


def layout_of(run: Any) -> set[str]:
    """The keys of everything below the root, without what is named by chance or by time."""
    keys = (k.replace(run.key.folder, "RUN") for k in run.objects.keys("simulate") + run.objects.keys("_catalog"))
    keys = (re.sub(r"snap-\d+-0-", "snap-", _UUID.sub("ID", k)) for k in keys)
    keys = (re.sub(r"gathers/(\d+)-\w+/", r"gathers/\1/", k) for k in keys)
    return {k for k in keys if not k.endswith(".lock")}


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_bucket_holds_the_same_rows_in_the_same_layout_as_a_folder(
    engine: str, house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(house, specs, engine=engine)
    assert run.uri == f"s3://{bucket}/scythe/{run.experiment_id}"
    in_bucket, keys = seen(run), layout_of(run)
    listed = scythe.list_runs("simulate").drop("run", "run_datetime", "seconds", "bytes")
    pairs = [(i.x, o.y) for i, o in scythe.rows("simulate")]

    monkeypatch.delenv("SCYTHE_STORAGE_BUCKET")
    twin = finish(house, specs, engine=engine)
    assert twin.uri.startswith("file://")
    assert in_bucket == seen(twin)
    assert kept(keys) == kept(layout_of(twin))
    assert listed.equals(scythe.list_runs("simulate").drop("run", "run_datetime", "seconds", "bytes"))
    assert pairs == [(i.x, o.y) for i, o in scythe.rows("simulate")] == [(1.0, 2.0), (2.0, 4.0), (4.0, 8.0)]


def test_every_uri_of_a_run_is_one_of_the_bucket_and_leads_to_the_bytes(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str
) -> None:
    run = finish(house, specs, engine="inline")
    refs = scythe.files("simulate")
    for name in ("weather", "report"):
        assert all(uri.startswith(f"s3://{bucket}/scythe/{run.experiment_id}/") for uri in refs[name])
    assert [fetch(uri).read_text() for uri in refs["report"]] == ["1.0 in rain", "2.0 in sun", "4.0 in sun"]
    assert sorted(BaseExperiment(simulate).list_results_files(run)) == sorted(refs["report"])
    result = run.result
    assert result is not None
    assert pl.read_parquet(fetch(result.uris["scalars"])).height == 3


def test_a_prefix_of_the_users_own_and_none_at_all_are_kept(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prefix, root in (("studies/a b", f"s3://{bucket}/studies/a b"), ("", f"s3://{bucket}")):
        monkeypatch.setenv("SCYTHE_STORAGE_BUCKET_PREFIX", prefix)
        run = finish(house, specs, engine="inline")
        assert run.uri == f"{root}/{run.experiment_id}"
        assert scythe.read("simulate")["y"].to_list() == [2.0, 4.0, 8.0]


def test_a_run_is_read_while_it_lasts_retried_rebuilt_and_deleted(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str
) -> None:
    with pytest.raises(ValueError, match="three is too much"):
        house.allocate(specs, engine="inline", chunk=2)
    run = scythe.open_run("simulate")
    assert run.status == "incomplete"
    assert scythe.read("simulate", run=run)["x"].to_list() == [1.0, 2.0]
    assert run.resume(engine="inline").result().errors == 1
    with pytest.raises(ValueError, match="three is too much"):
        run.retry_errors(engine="inline")
    run.resume(engine="inline").result()

    objects = storage()
    objects.delete_folder("_catalog")
    assert rebuild(objects) == 1
    assert scythe.read("simulate")["x"].to_list() == [1.0, 2.0, 4.0]
    assert scythe.read("simulate", table="errors")["x"].to_list() == [3.0]
    run.delete()
    assert scythe.list_experiments().height == 0
    assert objects.keys("simulate") == []


def test_the_command_line_works_on_a_bucket(house: BaseExperiment, specs: pl.DataFrame, bucket: str) -> None:
    run = finish(house, specs, engine="inline")
    command = [sys.executable, "-m", "scythe.cli"]
    for words, told in (
        (["rebuild"], f"1 run is in the catalog of s3://{bucket}/scythe"),
        (["show", "simulate"], f"s3://{bucket}/scythe/{run.experiment_id}"),
    ):
        program = [*command[:1], "-c", "from scythe.cli import main; main()", *words]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        assert told in done.stdout


def test_a_table_in_a_bucket_is_opened_by_its_folder_alone(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, s3: S3Server
) -> None:
    finish(house, specs, engine="inline")
    folder = storage().uri("_catalog/simulate/scalars")

    duck = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for name in ("avro", "iceberg", "httpfs"):
        (extension,) = Path(duckdb_ext.__path__[0]).rglob(f"v{duckdb.__version__}/*/{name}.duckdb_extension")
        duck.execute(f"LOAD '{extension}'")
    duck.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', REGION '{REGION}', "
        f"ENDPOINT '127.0.0.1:{s3.port}', URL_STYLE 'path', USE_SSL false)"
    )
    query = f"SELECT x, y, version FROM iceberg_scan('{folder}') ORDER BY x"
    expected = [(1.0, 2.0, "v1.0.0"), (2.0, 4.0, "v1.0.0"), (4.0, 8.0, "v1.0.0")]
    assert duck.execute(query).fetchall() == expected

    settings = {
        "s3.endpoint": s3.endpoint, "s3.access-key-id": KEY, "s3.secret-access-key": SECRET, "s3.region": REGION,
    }  # fmt: skip
    table = StaticTable.from_metadata(folder, settings)
    assert sorted(table.scan().to_arrow()["y"].to_pylist()) == [2.0, 4.0, 8.0]
    options = {
        "aws_endpoint_url": s3.endpoint, "aws_allow_http": "true", "aws_region": REGION,
        "aws_access_key_id": KEY, "aws_secret_access_key": SECRET,
    }  # fmt: skip
    frame = pl.scan_iceberg(table, storage_options=options).select("y").collect()
    assert sorted(frame["y"]) == [2.0, 4.0, 8.0]


def test_columns_and_filters_are_pushed_down_to_the_bucket(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str
) -> None:
    finish(house, specs, engine="inline")
    finish(house, specs.head(3).vstack(specs.tail(1)), engine="inline")
    plan = scythe.scan("simulate", "v1.0.0", columns=["y"]).filter(pl.col("y") > 3).explain()
    assert "PROJECT" in plan
    assert "SELECTION" in plan
    assert scythe.scan("simulate", "v1.0.0", columns=["y"]).filter(pl.col("y") > 3).collect()["y"].to_list() == [4, 8]
    # The other version's file is never opened: it is gone, and nobody notices.
    other = scythe.open_run("simulate", "v2.0.0")
    other.objects.delete([other.key.final("scalars")])
    assert scythe.read("simulate", "v1.0.0")["y"].to_list() == [2.0, 4.0, 8.0]


# --- the settings of boto3, and no others -----------------------------------------------------------


@pytest.fixture
def bare(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings for AWS but an empty configuration file, and one of credentials."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def works(bucket: str) -> None:
    """Writing to the bucket and reading from it, by every road there is."""
    objects = Objects.at(f"s3://{bucket}/p")
    assert objects.create("a", b"1") or objects.read("a") == b"1"
    frame = pl.DataFrame({"v": [1]})
    objects.write("b.pq", _parquet(frame))

    assert pl.read_parquet(objects.uri("b.pq"), storage_options=S3(objects.root).polars_options()).equals(frame)


def _parquet(frame: pl.DataFrame) -> bytes:
    import io

    sink = io.BytesIO()
    frame.write_parquet(sink)
    return sink.getvalue()


KEYS = f"aws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"


def test_a_profile_names_endpoint_region_and_keys(
    bare: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "config").write_text(f"[profile lab]\nregion={REGION}\nendpoint_url={s3.endpoint}\n{KEYS}")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    works(bucket)


def test_a_services_section_names_the_endpoint_of_s3_alone(
    bare: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = f"[services mine]\ns3 =\n  endpoint_url = {s3.endpoint}\n"
    text = f"[profile lab]\nregion={REGION}\nendpoint_url=http://127.0.0.1:9\nservices=mine\n{KEYS}{services}"
    (bare / "config").write_text(text)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    works(bucket)


def test_the_endpoint_of_s3_goes_before_the_endpoint_of_all(
    bare: Path, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "credentials").write_text(f"[default]\n{KEYS}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    works(bucket)


def test_what_boto3_does_not_read_is_not_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT": "http://127.0.0.1:9",
        "AWS_BUCKET": "another",
        "AWS_BUCKET_NAME": "another",
        "AWS_REGION": "mars-north-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_ALLOW_HTTP": "false",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_CONDITIONAL_PUT": "disabled",
        "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
        "AWS_REQUEST_PAYER": "true",
        "AWS_DISABLE_BULK_DELETE": "true",
        "AWS_PROXY_URL": "http://127.0.0.1:9",
        "AWS_TIMEOUT": "1ms",
    }.items():
        monkeypatch.setenv(name, value)
    works(bucket)


def asked_for_credentials(folder: Path, s3: S3Server, seconds: int) -> Path:
    """Has boto3 run a program for credentials that live for so long; each run of it writes a letter into this file."""
    log, process = folder / "asked", folder / "process.py"
    process.write_text(
        f"import datetime, json\nopen({str(log)!r}, 'a').write('x')\n"
        f"end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds={seconds})\n"
        f"print(json.dumps(dict(Version=1, AccessKeyId={KEY!r}, SecretAccessKey={SECRET!r}, SessionToken='t',"
        " Expiration=end.isoformat())))"
    )
    (folder / "config").write_text(
        f"[default]\nregion={REGION}\nendpoint_url={s3.endpoint}\ncredential_process={sys.executable} {process}\n"
    )
    return log


def test_credentials_that_expire_are_renewed_in_the_middle_of_things(bare: Path, bucket: str, s3: S3Server) -> None:
    log = asked_for_credentials(bare, s3, 2)
    works(bucket)
    before, began = len(log.read_text()), time.monotonic()
    while len(log.read_text()) == before:
        works(bucket)
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("seconds", [600, 900, 3600])
def test_a_program_that_gives_credentials_is_run_when_they_are_about_to_end_and_not_with_each_request(
    seconds: int, bare: Path, bucket: str, s3: S3Server
) -> None:
    log = asked_for_credentials(bare, s3, seconds)
    for _ in range(10):
        works(bucket)
    Objects.at(f"s3://{bucket}").write("large", os.urandom(PART + 1))
    fetch(f"s3://{bucket}/large")
    assert log.read_text() == "x"


class Issuer:
    """A server that knows one pair of keys at a time, and how a user writes them down."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.bucket = server.new_bucket()
        self._server, self._folder = server, folder
        users = self._users(KEY, SECRET)
        users.create_user(UserName="user")
        allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        users.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=policy)
        self.keys = users.create_access_key(UserName="user")["AccessKey"]

    def _users(self, key: str, secret: str) -> Any:
        session = boto3.Session(key, secret, region_name=REGION)
        return session.client("iam", endpoint_url=self._server.endpoint)

    def renew(self) -> None:
        """Other keys in place of those that there are, which the server knows no more."""
        users = self._users(self.keys["AccessKeyId"], self.keys["SecretAccessKey"])
        before, self.keys = self.keys, users.create_access_key(UserName="user")["AccessKey"]
        users.delete_access_key(UserName="user", AccessKeyId=before["AccessKeyId"])

    def write_down(self, how: str) -> None:
        """Where boto3 finds them: in a file, or from a program, which tells an end of theirs or none."""
        key, secret = self.keys["AccessKeyId"], self.keys["SecretAccessKey"]
        config, process = f"[default]\nregion={REGION}\nendpoint_url={self._server.endpoint}\n", self._folder / "p.py"
        if how == "file":
            text = f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n"
            (self._folder / "credentials").write_text(text)
        else:
            told = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}
            end = {"Expiration": "2100-01-01T00:00:00+00:00"} if how == "ending" else {}
            process.write_text(f"print({json.dumps(told | end)!r})")
            config += f"credential_process={sys.executable} {process}\n"
        (self._folder / "config").write_text(config)


@pytest.fixture
def issuer(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """A server that looks at keys, with a bucket that is the root."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="4") as strict:
        made = Issuer(strict, bare)
        monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", made.bucket)
        yield made


@pytest.mark.parametrize("how", ["file", "program", "ending"])
def test_credentials_that_are_renewed_after_the_server_refused_them_are_taken_up_without_a_restart(
    how: str, issuer: Issuer, house: BaseExperiment, specs: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_ASKED_EVERY_SECONDS", 0.0)
    issuer.write_down(how)
    run = finish(house, specs, engine="inline")
    objects = storage()
    objects.write("large", content := os.urandom(PART + 1))
    objects.write("other", b"")
    opened = objects.reader("large")
    reach.reach(issuer.bucket).client().put_object(Bucket=issuer.bucket, Key="a//odd", Body=b"odd")

    for ask in (
        lambda: scythe.list_runs("simulate")["run"].to_list() == [run.key.folder],
        lambda: scythe.read("simulate")["y"].to_list() == [2.0, 4.0, 8.0],
        lambda: opened.read() == content,
        lambda: objects.exists("large"),  # an answer without a code
        lambda: objects.delete(["large", "other"]) is None,
        lambda: fetch(f"s3://{issuer.bucket}/a//odd").read_bytes() == b"odd",
        lambda: [objects.read(key) for key in objects.keys("simulate")] == objects.read_all(objects.keys("simulate")),
    ):
        issuer.renew()
        issuer.write_down(how)
        assert ask()


def test_threads_that_are_refused_at_once_go_on_together(issuer: Issuer) -> None:
    issuer.write_down("file")
    objects = storage()
    keys = [f"some/{i}" for i in range(40)]
    for key in keys:
        objects.write(key, key.encode())
    issuer.renew()
    issuer.write_down("file")
    assert objects.read_all(keys) == [key.encode() for key in keys]


def test_boto3_is_asked_for_other_credentials_once_for_many_refusals(issuer: Issuer, bare: Path) -> None:
    issuer.write_down("program")
    program, log = bare / "p.py", bare / "asked"
    program.write_text(f"open({str(log)!r}, 'a').write('x')\n{program.read_text()}")
    objects = storage()
    assert objects.create("a", b"")
    issuer.renew()
    for _ in range(3):
        with pytest.raises(StorageRefused, match=r"refuses the credentials in use \(InvalidAccessKeyId\): check them$"):
            objects.read("a")
    assert log.read_text() == "xx"


def test_a_changed_environment_is_seen_without_a_restart(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects.at(f"s3://{bucket}/p")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError):
        objects.read("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(FileNotFoundError):
        objects.read("a")


# --- a client of the user's own ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_client_reaches_the_bucket_where_the_environment_would_not(
    engine: str, house: BaseExperiment, specs: pl.DataFrame, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    run = finish(house, specs, engine=engine, s3_client=s3.client())
    assert scythe.read("simulate")["y"].to_list() == [2.0, 4.0, 8.0]
    assert fetch(scythe.files("simulate")["report"][0]).read_text() == "1.0 in rain"

    client = s3.client()
    for listed in client.list_objects_v2(Bucket=bucket)["Contents"]:
        content = client.get_object(Bucket=bucket, Key=listed["Key"])["Body"].read()
        assert SECRET.encode() not in content, listed["Key"]
    run.delete()


def test_what_is_handed_to_other_processes_follows_a_client_whose_credentials_are_renewed(
    bare: Path, bucket: str, s3: S3Server
) -> None:
    program = (
        "import datetime, json, time; now = datetime.datetime.now(datetime.timezone.utc); "
        "print(json.dumps(dict(Version=1, AccessKeyId=str(time.time_ns()), SecretAccessKey='hidden', SessionToken='t', "
        "Expiration=(now + datetime.timedelta(seconds=1)).isoformat())))"
    )
    (bare / "process.py").write_text(program)
    (bare / "config").write_text(
        f"[profile mine]\nregion={REGION}\ncredential_process={sys.executable} {bare / 'process.py'}\n"
    )
    root = f"s3://{bucket}/scythe"
    reach.use_client(root, boto3.Session(profile_name="mine").client("s3", endpoint_url=s3.endpoint))
    first, began = reach.hand_over(root), time.monotonic()
    assert first is not None
    while (second := reach.renewed(root, first)) is first:
        assert time.monotonic() - began < 60
    assert second is not None
    assert isinstance(first.credentials, Keys)
    assert isinstance(second.credentials, Keys)
    assert second.endpoint == first.endpoint == s3.endpoint
    assert second.credentials.access_key > first.credentials.access_key
    assert "hidden" not in repr(second) + repr(second.credentials)


def test_a_client_whose_credentials_are_refused_is_asked_for_others(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_ASKED_EVERY_SECONDS", 0.0)
    issuer.write_down("ending")
    objects = storage()
    reach.use_client(objects.root, boto3.client("s3"))
    assert objects.create("a", b"1")
    issuer.renew()
    issuer.write_down("ending")
    assert objects.read("a") == b"1"

    issuer.write_down("file")
    reach.use_client(objects.root, boto3.Session().client("s3"))
    assert objects.read("a") == b"1"
    issuer.renew()
    issuer.write_down("file")
    with pytest.raises(StorageRefused, match=r"that was given: give one that has others \(s3_client=\)$"):
        objects.read("a")
    reach.use_client(objects.root, boto3.Session().client("s3"))
    assert objects.read("a") == b"1"


def test_a_process_that_was_handed_credentials_of_boto3_asks_for_others_itself(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.write_down("file")
    objects = storage()
    handed = pickle.loads(pickle.dumps(reach.hand_over(objects.root)))
    monkeypatch.setattr(reach, "_GIVEN", {})
    reach.take_over(objects.root, handed)
    assert objects.create("a", b"1")
    issuer.renew()
    issuer.write_down("file")
    assert objects.read("a") == b"1"


@pytest.mark.parametrize(
    ("client", "named"),
    [("a string", "builtins.str"), (object(), "builtins.object"), ("sqs", "botocore.client.SQS")],
    ids=["string", "object", "another service"],
)
def test_what_is_no_client_of_s3_is_refused(
    client: Any, named: str, house: BaseExperiment, specs: pl.DataFrame, bucket: str
) -> None:
    client = boto3.client("sqs") if client == "sqs" else client
    with pytest.raises(AllocationError, match=rf"must be a client as boto3\.client\('s3'\) makes it; it is {named}"):
        house.allocate(specs, engine="inline", s3_client=client)


class Remote(ExperimentInputSpec):
    file: FileReference


class Text(ExperimentOutputSpec):
    text: str


def read_remote(spec: Remote) -> Text:
    assert isinstance(spec.file, Path)
    return Text(text=spec.file.read_text())


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_client_beside_a_folder_reaches_the_inputs_in_buckets(
    engine: str, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in os.environ if n.startswith(("AWS_", "SCYTHE_STORAGE_BUCKET"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(reach, "_GIVEN", {})
    s3.client().put_object(Bucket=bucket, Key="a.csv", Body=b"content")
    experiment = BaseExperiment(ExperimentRegistry.Register(name="remote", retries=0)(read_remote))
    inputs = pl.DataFrame({"file": [f"s3://{bucket}/a.csv"]})
    _, ref = experiment.allocate(inputs, engine=engine, workers=1, s3_client=s3.client())
    ref.result(timeout=100)
    assert scythe.read("remote")["text"].to_list() == ["content"]


# --- bad input --------------------------------------------------------------------------------------


def refused(house: BaseExperiment, specs: pl.DataFrame, match: str, seconds: float = 15.0) -> None:
    """Allocating and reading both say what is wrong in one sentence, soon."""
    began = time.monotonic()
    with pytest.raises(AllocationError, match=match) as told:
        house.allocate(specs, engine="inline")
    assert "\n" not in str(told.value)
    for ask in (lambda: scythe.read("simulate"), scythe.list_experiments):
        with pytest.raises(ScytheError, match=match) as told:
            ask()
        assert "\n" not in str(told.value)
    assert time.monotonic() - began < seconds


def test_a_bucket_that_is_not_there(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "no-such-bucket-here")
    refused(house, specs, "there is no bucket 'no-such-bucket-here' at http://127.*: create it, or correct its name")


def test_an_endpoint_that_nobody_listens_at(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused(house, specs, f"the bucket '{bucket}' at http://127.0.0.1:9 cannot be reached: check the network", 30)


def test_no_credentials_at_all(
    house: BaseExperiment, specs: pl.DataFrame, bare: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(house, specs, f"the bucket '{bucket}' cannot be reached: there are no AWS credentials: set AWS_PROFILE")


def test_a_profile_that_is_not_there(
    house: BaseExperiment, specs: pl.DataFrame, bare: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    refused(house, specs, rf"the bucket '{bucket}' cannot be reached: .*profile \(nobody\) could not be found")


def test_a_process_that_gives_no_credentials(
    house: BaseExperiment, specs: pl.DataFrame, bare: Path, bucket: str, s3: S3Server
) -> None:
    process = f"{sys.executable} -c 'raise SystemExit(\"log in first\")'"
    (bare / "config").write_text(f"[default]\nendpoint_url={s3.endpoint}\ncredential_process={process}\n")
    refused(house, specs, f"the bucket '{bucket}' .*log in first")


def test_credentials_that_the_server_refuses(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.endpoint)
        refused(house, specs, rf"the bucket '{bucket}' at .* refuses the credentials in use \(InvalidAccessKeyId\)")


def test_a_bucket_that_is_closed_to_ones_credentials(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="3") as strict:
        session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION)
        users = session.client("iam", endpoint_url=strict.endpoint)
        users.create_user(UserName="guest")
        made = users.create_access_key(UserName="guest")["AccessKey"]
        monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", strict.new_bucket())
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["SecretAccessKey"])
        refused(house, specs, r"refuses the credentials in use \(AccessDenied\): check them")


def test_an_input_file_that_is_not_in_its_bucket_is_an_error_of_its_input(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str
) -> None:
    Objects.at(f"s3://{bucket}").write("weather/rain.epw", b"rain")
    there, missing = f"s3://{bucket}/weather/rain.epw", f"s3://{bucket}/weather/snow.epw"
    specs = specs.head(2).with_columns(weather=pl.Series([there, missing]))
    with pytest.raises(InputError, match=rf"weather: {missing} does not exist \(row 1\)"):
        house.allocate(specs, engine="inline", copy_inputs=True)
    with pytest.raises(FetchError, match=r"snow\.epw does not exist"):
        house.allocate(specs, engine="inline")


# --- bytes ------------------------------------------------------------------------------------------


@pytest.fixture
def objects(bucket: str) -> Objects:
    """The objects of an empty bucket."""
    return Objects.at(f"s3://{bucket}/root")


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART + 12345])
def test_files_of_any_size_go_up_and_come_down_as_they_were(size: int, objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(content := os.urandom(size))
    objects.upload(tmp_path / "up", "file")
    objects.download("file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert objects.size("file") == size
    assert fetch(objects.uri("file")).read_bytes() == content
    with objects.reader("file") as file:
        assert file.read() == content


def test_large_files_go_up_in_parts(objects: Objects, s3: S3Server, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(os.urandom(2 * PART + 1))
    objects.upload(tmp_path / "up", "large")
    head = s3.client().head_object(Bucket=objects.root.split("/")[2], Key="root/large")
    assert head["ETag"].endswith('-3"')


def test_a_file_is_read_wherever_one_seeks(objects: Objects) -> None:
    content = os.urandom(3 * 1024 * 1024)
    objects.write("file", content)
    with objects.reader("file") as file:
        for at, n in ((0, 10), (len(content) - 10, 20), (1_000_000, 1_500_000), (5, 0), (len(content), 1)):
            assert file.seek(at) == at
            assert file.read(n) == content[at : at + n]
        assert file.seek(-4, os.SEEK_END) == len(content) - 4
        assert file.read() == content[-4:]
        assert not file.closed
    with pytest.raises(FileNotFoundError):
        objects.reader("nothing")


def test_an_object_that_is_replaced_while_it_is_read_is_an_error_and_no_mixture(objects: Objects) -> None:
    objects.write("file", b"a" * 3_000_000)
    with objects.reader("file") as file:
        objects.write("file", b"b" * 3_000_000)
        with pytest.raises(StorageError, match="was replaced while it was read"):
            file.read(10)


def test_of_many_that_create_one_object_one_succeeds(objects: Objects) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: objects.create("taken", b"the same bytes"), range(16)))
    assert sorted(made) == [False] * 15 + [True]


def test_many_files_move_at_once_and_inside_a_running_event_loop_too(objects: Objects, tmp_path: Path) -> None:
    import asyncio

    for i in range(100):
        (tmp_path / str(i)).write_text(str(i))

    async def from_a_notebook() -> None:
        objects.publish_all([(tmp_path / str(i), f"many/{i}") for i in range(100)])

    asyncio.run(from_a_notebook())
    assert not (tmp_path / "5").exists()
    assert len(objects.files("many")) == 100
    found = fetch_all([objects.uri(f"many/{i}") for i in range(100)] + [objects.uri("many/no")])
    assert [found[objects.uri(f"many/{i}")].read_text() for i in range(100)] == [str(i) for i in range(100)]  # pyright: ignore
    assert isinstance(found[objects.uri("many/no")], FetchError)


def test_names_with_anything_in_them_are_kept(objects: Objects) -> None:
    for name in ("a b", "ü", "50%", "%20", "a+b", "a#b?c", "x=y&z", uuid.uuid4().hex):
        objects.write(f"names/{name}/file {name}", name.encode())
        assert objects.read(f"names/{name}/file {name}") == name.encode()
        assert fetch(objects.uri(f"names/{name}/file {name}")).read_bytes() == name.encode() or "?" in name
    assert len(objects.folders("names")) == 8
    objects.delete_folder("names")
    assert objects.keys("names") == []


def test_no_local_file_is_left_behind(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    finish(house, specs, engine="inline")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_run_that_cannot_be_finished_for_want_of_the_bucket_says_so_and_goes_on_later(
    house: BaseExperiment, specs: pl.DataFrame, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe.gather.final import Gather

    finish_it = Gather.finish

    def unplugged(self: Gather, *arguments: Any) -> Any:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        return finish_it(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Gather, "finish", unplugged)
        with pytest.raises(RunError, match=r"cannot be gathered: the bucket .* cannot be reached"):
            house.allocate(specs.head(2), engine="inline")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    run = scythe.open_run("simulate")
    assert run.status == "incomplete"
    assert run.resume(engine="inline").result().rows == 2


class Whole(ExperimentInputSpec):
    x: float


class Half(ExperimentOutputSpec):
    y: float


def halve(spec: Whole) -> Half:
    return Half(y=spec.x / 2)


def test_a_run_asks_a_bucket_for_no_more_than_it_has_to_know(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    server = FolderS3(tmp_path / "served")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", "bucket")
        # On a slow machine tables would be loaded anew, and a heart would beat.
        monkeypatch.setattr(tables, "_FRESH_SECONDS", 1e9)
        monkeypatch.setattr(lease, "_LOOK_SECONDS", 1e9)
        experiment = BaseExperiment(ExperimentRegistry.Register(name="asks")(halve))
        asked: list[int] = []
        for _ in range(4):
            server.counted.clear()
            experiment.allocate(pl.DataFrame({"x": [1.0]}), engine="inline", version="bumppatch")
            asked.append(sum(n for method, n in server.counted.items() if method != "bytes"))
        assert asked[-1] == asked[-2]  # the same for each run
        assert asked[-1] <= 115

        server.counted.clear()
        assert scythe.dataset("asks", x=["x"], y="y").batches(1).at(0)[0]["y"] == 0.5
        assert sum(n for method, n in server.counted.items() if method != "bytes") <= 12  # its small tables once each
    finally:
        server.shutdown()
        server.server_close()


def test_a_request_that_failed_is_repeated_after_a_pause(bucket: str) -> None:
    tried: list[float] = []

    def call() -> str:
        tried.append(time.monotonic())
        if len(tried) < 3:
            raise GenericError("status code: 503")
        return "there"

    assert attempted(f"s3://{bucket}", call) == "there"
    assert len(tried) == 3
    assert min(later - before for before, later in pairwise(tried)) > 0.05
