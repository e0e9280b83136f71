"""The package mnist1d: a small set of another seed, and the head of the frozen one."""

from tests.oracles import Cases


def cases() -> Cases:
    from mnist1d.data import get_dataset_args, make_dataset

    found: Cases = {}
    for case, count, seed, rows in (("small", 100, 7, 80), ("frozen", 5000, 42, 20)):
        options = get_dataset_args()
        options.num_samples, options.seed = count, seed
        made = make_dataset(options)
        found[case] = {"train": made["x"][:rows], "test": made["x_test"][:20], "train_labels": made["y"]}
    return found
