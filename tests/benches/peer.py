"""One side of `peers.py`, in an interpreter that has its package: `peer.py NAME write|disk|bucket FOLDER SETTING`.

It writes the rows of `FOLDER/all.npy` in the peer's own format, or feeds them to a training that does nothing, and prints what it took.
Only the standard library and NumPy are imported at the top: nothing else is in all of the interpreters.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

FILES, HOURS, BATCH = 6000, 8760, 64
MARK = "measured "
#: What is imported before a clock runs.
PACKAGES = {
    "gather": [],
    "scythe": ["training", "scythe.loaders.verb", "scythe.remote.published", "scythe.loaders.stats", "boto3"],
    "torch": ["torch.utils.data"],
    "litdata": ["litdata"],
    "mds": ["streaming", "streaming.base.util"],
    "wds": ["webdataset"],
    "hf": ["datasets", "torch.utils.data"],
    "lance": ["lance", "lance.sampler", "lance.torch.data"],
}
#: The batches of an epoch, by its number.
Epochs = Callable[[int], Iterable[Any]]


def cpu() -> float:
    """CPU seconds of this process and of all below it, those that have ended too."""
    parents, used = dict[int, int](), dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(path.parent.name)], used[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used[pid] for pid in family) / os.sysconf("SC_CLK_TCK")


@cache
def rows(source: str) -> np.ndarray:
    return np.load(source, mmap_mode="r")


def row(source: str, i: int) -> np.ndarray:
    return np.array(rows(source)[i])


def orders(epoch: int) -> list[np.ndarray]:
    """The rows of each batch, shuffled over all of them."""
    order = np.random.default_rng(epoch).permutation(FILES)
    return [order[i : i + BATCH] for i in range(0, FILES, BATCH)]


def ahead(read: Callable[[Any], Any], jobs: Iterable[Any], threads: int) -> Iterator[Any]:
    """What `read` gives of the jobs, in their order, read ahead by threads; none reads at once."""
    if not threads:
        yield from map(read, jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Any]()
        for job in jobs:
            waiting.append(pool.submit(read, job))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def same(batch: Any) -> Any:
    return batch


# --- a memory map, and Scythe ---


def gather_opened(home: Path, url: str | None, cached: Path) -> Epochs:
    mapped = rows(str(home.parent.parent.parent / "all.npy"))
    return lambda epoch: (mapped[order] for order in orders(epoch))


def scythe_written(source: Path, home: Path, name: str) -> None:
    import_module("training").made(name, FILES)


def scythe_opened(home: Path, url: str | None, cached: Path, name: str, **options: Any) -> Epochs:
    batches = import_module("training").dataset(name).batches(BATCH, seed=0, **options)
    return lambda epoch: (batch["y"] for batch in batches.at(epoch))


# --- PyTorch alone: a file a sample, and one array ---


class Files:
    """A file a sample; a batch is read at once where the loader asks for one."""

    def __init__(self, home: Path) -> None:
        self.paths = [str(home / f"{i:04d}.npy") for i in range(FILES)]

    def __len__(self) -> int:
        return FILES

    def __getitem__(self, i: int | list[int]) -> np.ndarray:
        return np.load(self.paths[i]) if isinstance(i, int) else np.stack([np.load(self.paths[j]) for j in i])


class Array:
    """One array, from a memory map."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __len__(self) -> int:
        return FILES

    def __getitem__(self, i: int | list[int]) -> np.ndarray:
        return rows(self.path)[i]


class Fetched:
    """A file a sample from a server: the files of a batch are asked for by 32 threads, each with a connection that it keeps."""

    def __init__(self, url: str) -> None:
        self.url, self.pool = urlsplit(url), None
        self.own: Any = None

    def __len__(self) -> int:
        return FILES

    def one(self, i: int) -> np.ndarray:
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection(self.url.netloc)
        self.own.connection.request("GET", f"{self.url.path}/{i:04d}.npy")
        return np.load(io.BytesIO(self.own.connection.getresponse().read()))

    def __getitem__(self, i: list[int]) -> np.ndarray:
        if self.pool is None:
            self.pool, self.own = ThreadPoolExecutor(32), threading.local()
        return np.stack(list(self.pool.map(self.one, i)))


def torch_written(source: Path, home: Path, name: str) -> None:
    if name == "files":
        for i in range(FILES):
            np.save(home / f"{i:04d}.npy", row(str(source), i))
    else:
        np.save(home / "all.npy", rows(str(source)))


def torch_opened(home: Path, url: str | None, cached: Path, name: str, workers: int, at_once: bool = True) -> Epochs:
    torch = import_module("torch.utils.data")
    data = Array(home / "all.npy") if name == "array" else Fetched(web(url)) if url else Files(home)
    how = {"num_workers": workers, "persistent_workers": workers > 0}
    if at_once:
        order = torch.BatchSampler(torch.RandomSampler(data), BATCH, drop_last=False)
        return lambda epoch: torch.DataLoader(data, sampler=order, batch_size=None, **how)
    loader = torch.DataLoader(data, batch_size=BATCH, shuffle=True, **how)
    return lambda epoch: loader


def web(url: str) -> str:
    """The address over HTTP of what has an address of S3."""
    return url.replace("s3://", os.environ["AWS_ENDPOINT_URL"] + "/")


# --- litdata ---


def litdata_written(source: Path, home: Path, megabytes: int) -> None:
    import_module("litdata").optimize(
        fn=partial(row, str(source)), inputs=list(range(FILES)), output_dir=str(home), chunk_bytes=megabytes << 20,
        num_workers=2, verbose=False,
    )  # fmt: skip


def litdata_opened(home: Path, url: str | None, cached: Path, megabytes: int, workers: int, **options: Any) -> Epochs:
    litdata = import_module("litdata")
    place: dict[str, Any] = {"input_dir": str(home)}
    if url:
        # Its client of buckets refuses a server without TLS, and has no setting for that.
        import_module("litdata.streaming.downloader")._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
        endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        place = {"input_dir": url, "cache_dir": str(cached), "storage_options": endpoint}
    data = litdata.StreamingDataset(**place, shuffle=True, **options)
    loader = litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda epoch: loader


# --- MosaicML Streaming ---


def mds_written(source: Path, home: Path, megabytes: int) -> None:
    columns = {"y": f"ndarray:float32:{HOURS}"}
    with import_module("streaming").MDSWriter(out=str(home), columns=columns, size_limit=megabytes << 20) as out:
        for i in range(FILES):
            out.write({"y": row(str(source), i)})


def mds_opened(
    home: Path, url: str | None, cached: Path, megabytes: int, workers: int | None, predownload: int | None = None
) -> Epochs:
    streaming = import_module("streaming")
    import_module("streaming.base.util").clean_stale_shared_memory()
    place = {"remote": url, "local": str(cached)} if url else {"local": str(home)}
    data = streaming.StreamingDataset(**place, shuffle=True, batch_size=BATCH, predownload=predownload)
    for stream in data.streams if url else []:
        # The connection that has fetched the index must not be shared by forked workers, who then get each other's bytes.
        stream._downloader.clean_up()
    if workers is None:
        return lambda epoch: (np.stack([sample["y"] for sample in data[order]]) for order in orders(epoch))
    loader = streaming.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda epoch: (batch["y"] for batch in loader)


# --- WebDataset ---


def wds_written(source: Path, home: Path, megabytes: int) -> None:
    with import_module("webdataset").ShardWriter(f"{home}/%04d.tar", maxsize=megabytes << 20, verbose=0) as out:
        for i in range(FILES):
            out.write({"__key__": f"{i:04d}", "bin": row(str(source), i).tobytes()})


def of_bytes(sample: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(sample["bin"], np.float32)


def wds_opened(home: Path, url: str | None, cached: Path, megabytes: int, workers: int, keep: bool = False) -> Epochs:
    webdataset = import_module("webdataset")
    shards = sorted(home.glob("*.tar"))
    urls = [f"{web(url)}/{shard.name}" for shard in shards] if url else list(map(str, shards))
    data = webdataset.WebDataset(urls, shardshuffle=len(urls), cache_dir=str(cached) if keep else None)
    data = data.shuffle(1000).map(of_bytes).batched(BATCH, collation_fn=np.stack)
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda epoch: loader


# --- Hugging Face datasets, and Lance ---


def arrow(source: Path) -> Any:
    """The rows as a table of one column of lists of a fixed size."""
    pa = import_module("pyarrow")
    parts = [np.array(rows(str(source))[i : i + 1000]).reshape(-1) for i in range(0, FILES, 1000)]
    return pa.table({"y": pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(p), HOURS) for p in parts])})


def of_arrow(table: Any) -> np.ndarray:
    """A column of lists of a fixed size as an array: without a copy where the table has one chunk."""
    column = table["y"]
    whole = column.combine_chunks() if hasattr(column, "chunks") else column
    return whole.flatten().to_numpy().reshape(-1, HOURS)


def hf_written(source: Path, home: Path) -> None:
    import_module("datasets").Dataset(arrow(source)).save_to_disk(str(home))


def hf_opened(home: Path, url: str | None, cached: Path, way: str, workers: int = 0) -> Epochs:
    datasets = import_module("datasets")
    datasets.disable_progress_bars()
    data = datasets.load_from_disk(str(home))
    if way == "iterable":
        parts = data.with_format("arrow").to_iterable_dataset(num_shards=24)
        return lambda epoch: map(of_arrow, parts.shuffle(seed=epoch, buffer_size=1000).iter(batch_size=BATCH))
    if way == "DataLoader":
        torch = import_module("torch.utils.data")
        shown = data.with_format("torch")
        loader = torch.DataLoader(
            shown, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        return lambda epoch: (batch["y"] for batch in loader)
    shown = data.with_format(way)
    if way == "arrow":
        return lambda epoch: (of_arrow(shown[order]) for order in orders(epoch))
    return lambda epoch: (shown[order]["y"] for order in orders(epoch))


def lance_written(source: Path, home: Path) -> None:
    import_module("lance").write_dataset(arrow(source), str(home), mode="overwrite")


def lance_opened(
    home: Path, url: str | None, cached: Path, way: str, threads: int = 0, workers: int = 0, readahead: int = 16
) -> Epochs:
    lance = import_module("lance")
    options = {"storage_options": {"aws_endpoint": os.environ.get("AWS_ENDPOINT_URL", ""), "allow_http": "true"}}
    options = options if url else {}
    if way == "get_safe_loader":
        loader = safe_lance(url or str(home), options, workers)
        return lambda epoch: loader
    data = lance.dataset(url or str(home), **options)
    if way == "take":
        return lambda epoch: ahead(lambda order: of_arrow(data.take(order)), orders(epoch), threads)

    def mixed(epoch: int) -> Iterator[np.ndarray]:
        sampler = import_module("lance.sampler").ShardedBatchSampler(0, 1, randomize=True, seed=epoch)
        blocks = iter(sampler(data, batch_size=BATCH, columns=["y"], batch_readahead=readahead))
        rng = np.random.default_rng(epoch)
        while parts := [of_arrow(block) for block in islice(blocks, 30)]:
            held = np.concatenate(parts)
            order = rng.permutation(len(held))
            yield from (held[order[i : i + BATCH]] for i in range(0, len(held), BATCH))

    return mixed


def safe_lance(where: str, options: dict[str, Any], workers: int) -> Any:
    """Lance's loader for PyTorch; its dataset gives lists of Python's numbers, so a batch is taken here as an array."""
    data = import_module("lance.torch.data")
    return data.get_safe_loader(
        Taken(where, options), batch_size=BATCH, num_workers=workers, shuffle=True, collate_fn=same,
        persistent_workers=workers > 0, multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip


class Taken:
    """What SafeLanceDataset does, with a batch as one array."""

    def __init__(self, where: str, options: dict[str, Any]) -> None:
        self.where, self.options, self.data = where, options, None

    def __len__(self) -> int:
        return FILES

    def __getitems__(self, order: list[int]) -> Any:
        self.data: Any = self.data or import_module("lance").dataset(self.where, **self.options)
        return import_module("torch").from_numpy(np.array(of_arrow(self.data.take(order))))


# --- what is measured ---


def epoch_of(epochs: Epochs, epoch: int, *, total: float | None = None) -> dict[str, float]:
    """Wall and CPU seconds of an epoch, and those to its first batch; the rows are compared with the sum of their first numbers."""
    used, began, first, count, summed = cpu(), time.perf_counter(), 0.0, 0, 0.0
    for batch in epochs(epoch):
        first = first or time.perf_counter() - began
        count += len(batch)
        summed += float(batch[0, 0] if total is None else batch[:, 0].sum())
    wall = time.perf_counter() - began
    if count != FILES or (total is not None and abs(summed - total) > 0.01):
        raise ValueError(f"An epoch of {count:,} rows whose first numbers add up to {summed:.3f}, not {total}.")
    return {"wall": wall, "cpu": cpu() - used, "first": first}


def tell(**found: float) -> None:
    print(MARK + json.dumps(found), flush=True)


def on_disk(opened: Callable[[], Epochs], total: float) -> None:
    """The best of the epochs of two seconds, three at least, after one that does not count."""
    epochs = opened()
    epoch_of(epochs, 0, total=total)
    found, began = list[dict[str, float]](), time.perf_counter()
    while len(found) < 3 or time.perf_counter() - began < 2:
        found.append(epoch_of(epochs, len(found) + 1))
    tell(wall=min(f["wall"] for f in found), cpu=sum(f["cpu"] for f in found) / len(found))


def from_bucket(opened: Callable[[], Epochs], total: float) -> None:
    """The first epoch from opening on, with nothing cached; then, when the caller has counted its requests, the second."""
    used, began = cpu(), time.perf_counter()
    epochs = opened()
    took = time.perf_counter() - began
    found = epoch_of(epochs, 0, total=total)
    tell(opened=took, wall=took + found["wall"], first=took + found["first"], cpu=cpu() - used)
    sys.stdin.readline()
    tell(**epoch_of(epochs, 1))


def main() -> None:
    name, mode, folder, setting = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    kept = {key: setting[key] for key in ("name", "megabytes") if key in setting}
    key = "-".join(map(str, (name, *kept.values())))
    home = folder / "s3" / "bucket" / key
    for package in PACKAGES[name]:
        import_module(package)
    if mode == "write":
        home.mkdir(parents=True, exist_ok=True)
        used = cpu()
        globals()[f"{name}_written"](folder / "all.npy", home, **kept)
        tell(cpu=cpu() - used)
        return
    cached, url = Path(os.environ["SCYTHE_CACHE_DIR"]) / key, f"s3://bucket/{key}" if mode == "bucket" else None
    cached.mkdir(parents=True, exist_ok=True)
    opened = partial(globals()[f"{name}_opened"], home, url, cached, **setting)
    total = float(rows(str(folder / "all.npy"))[:, 0].astype(float).sum())
    (from_bucket if url else on_disk)(opened, total)


if __name__ == "__main__":
    main()
