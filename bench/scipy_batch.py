"""What a user would do instead: the same lists in one batch, by scipy. One thread; CPU time by stage, as JSON.

    python3 scipy_batch.py LOG WINDOW TOP

LOG holds records of member u32, item u32, time i64, little endian. The lists are those of `also_bought` with
popularity_damping 1/2 and support_rounding 1: of each member's WINDOW latest items, ranked by c^2/n_j, then item number.
"""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import json
import resource
import sys
import time

import numpy as np
import pandas as pd
import scipy
import scipy.sparse as sparse


def latest(log, window):
    """The WINDOW latest distinct items of each member; of two at one time the smaller item."""
    held = log.groupby(["member", "item"], as_index=False)["at"].max()
    held = held.sort_values(["member", "at", "item"], ascending=[True, False, True])
    return held[held.groupby("member").cumcount() < window]


def co_counts(held):
    """The members that hold both items, for all pairs: the transposed incidence matrix times itself."""
    ones = np.ones(len(held), np.int32)
    shape = (held["member"].max() + 1, held["item"].max() + 1)
    incidence = sparse.csr_matrix((ones, (held["member"], held["item"])), shape=shape)
    return (incidence.T.tocsr() @ incidence).tocsr()


def ranked(counts, top):
    """The TOP best neighbours of each item."""
    supports = counts.diagonal().astype(float)
    lists = []
    for item in range(counts.shape[0]):
        begin, end = counts.indptr[item], counts.indptr[item + 1]
        others, together = counts.indices[begin:end], counts.data[begin:end].astype(float)
        kept = others != item
        others, together = others[kept], together[kept]
        key = together * together / supports[others]
        if len(others) > top:
            best = np.argpartition(-key, top - 1)[:top]
            others, key = others[best], key[best]
        lists.append(others[np.lexsort((others, -key))])
    return lists


def main():
    path, window, top = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    raw = np.fromfile(path, dtype=np.dtype([("member", "<u4"), ("item", "<u4"), ("at", "<i8")]))
    log = pd.DataFrame({"member": raw["member"], "item": raw["item"], "at": raw["at"]})
    began, cpu = time.time(), time.process_time()
    held = latest(log, window)
    after_latest = time.process_time()
    counts = co_counts(held)
    after_counts = time.process_time()
    lists = ranked(counts, top)
    after_ranked = time.process_time()
    report = {
        "events": len(log),
        "pairs": int(counts.nnz - (counts.diagonal() > 0).sum()),
        "lists": sum(1 for found in lists if len(found)),
        "latest_cpu_s": after_latest - cpu,
        "co_counts_cpu_s": after_counts - after_latest,
        "ranked_cpu_s": after_ranked - after_counts,
        "total_cpu_s": after_ranked - cpu,
        "wall_s": time.time() - began,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "pandas": pd.__version__},
    }
    json.dump(report, sys.stdout)


main()
