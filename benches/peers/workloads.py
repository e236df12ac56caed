"""The workloads of benches/attention, for the scripts of this folder."""


class Workload:
    """Groups (name, size or None if cached), patterns (queries, keys), cached sizes; every group half padded or not."""

    def __init__(self, name, hidden, heads, groups, patterns, cached=None, half_padded=False):
        self.name, self.hidden, self.heads = name, hidden, heads
        self.groups, self.patterns, self.cached, self.half_padded = groups, patterns, cached or {}, half_padded
        self.dim = hidden // heads
        self.fresh = [(group, size) for group, size in groups if size is not None]
        self.tokens = sum(size for _, size in self.fresh)
        # Where keys lie in a tensor of all of them: those of the input, or the cache, which then has all.
        self.places, at = {}, 0
        for group, size in list(self.cached.items()) or self.fresh:
            self.places[group], at = slice(at, at + size), at + size
        self.keys = at

    def flops(self):
        size = dict(self.fresh) | self.cached
        asking = dict(self.fresh)
        pairs = sum(size[a] * size[b] for asked, seen in self.patterns for a in asked if a in asking for b in seen)
        return 4 * pairs * self.hidden // (2 if self.half_padded else 1)

    def real(self, group):
        """Which tokens of a group are no padding."""
        size = self.places[group].stop - self.places[group].start
        return [token < size // 2 or not self.half_padded for token in range(size)]

    def pattern_of(self, group):
        return next(index for index, (asking, _) in enumerate(self.patterns) if group in asking)


def domains(kind, sizes):
    """Groups and patterns of anchor attention over surface and volume."""
    groups, members = [], {}
    for domain, (anchors, queries) in zip(("surface", "volume"), sizes):
        members[domain] = [(f"{domain}_anchors", anchors)] + ([(f"{domain}_queries", queries)] if queries else [])
        groups += members[domain]
    anchors = {domain: [f"{domain}_anchors"] for domain in members}
    every = [name for names in anchors.values() for name in names]
    keys = {
        "self": lambda domain: anchors[domain],
        "cross": lambda domain: [name for other in members if other != domain for name in anchors[other]],
        "joint": lambda domain: every,
    }[kind]
    if kind == "joint":
        return groups, [([name for name, _ in groups], every)]
    return groups, [([name for name, _ in members[domain]], keys(domain)) for domain in members]


def ring(count, size):
    """Groups that each see themselves and the first."""
    names = [f"group_{group}" for group in range(count)]
    return [(name, size) for name in names], [([n], [n] if n == names[0] else [n, names[0]]) for n in names]


def cpu_workloads():
    even = [(2048, 2048), (2048, 2048)]
    for name, kind in (("W1 self", "self"), ("W2 cross", "cross"), ("W3 joint", "joint")):
        yield Workload(name, 192, 3, *domains(kind, even))
    yield Workload("W4 ragged", 192, 3, *domains("self", [(1500, 3000), (700, 5003)]))
    cached = {"surface_anchors": 2048, "volume_anchors": 2048}
    yield Workload("W5 cached", 192, 3, *domains("self", [(None, 4096), (None, 4096)]), cached)
    yield Workload("W6 groups", 192, 3, *ring(16, 256))
    yield Workload("DOC", 64, 4, *domains("self", [(100, 50), (80, 60)]))


def gpu_workloads():
    even = [(16384, 16384), (16384, 16384)]
    for name, kind in (("A self", "self"), ("A cross", "cross"), ("A joint", "joint")):
        yield Workload(name, 192, 3, *domains(kind, even))
    cached = {"surface_anchors": 16384, "volume_anchors": 16384}
    yield Workload("B cached", 192, 3, *domains("joint", [(None, 32768), (None, 32768)]), cached)
    yield Workload("C ragged", 192, 3, *domains("self", [(3586, 0), (4096, 0)]))
    yield Workload("C documentation", 64, 4, *domains("self", [(100, 50), (80, 60)]))
    yield Workload("D groups", 192, 3, *ring(64, 512))
    yield Workload("F padded", 192, 3, *domains("self", even), half_padded=True)
    yield Workload("G dense", 2048, 16, [("tokens", 8192)], [(["tokens"], ["tokens"])])
