from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.groups import (
    CACHE_LINE,
    OWN_BLOB,
    PAGE,
    Group,
    Tensor,
    plan_groups,
    write_groups,
)
from edge_sdk.errors import BundleError

sizes = st.one_of(st.integers(0, 200), st.integers(PAGE - 2, PAGE + 2), st.integers(0, 400_000))


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    """Groups over a common pool of tensors, so that some tensors have several users."""
    pool = [Tensor(f"t{i}", size) for i, size in enumerate(draw(st.lists(sizes, max_size=20)))]
    users = st.lists(st.sampled_from(pool), max_size=4) if pool else st.just([])
    return [
        Group(f"node{i}", tuple(tensors), draw(st.sampled_from(["MatMul", "Norm"])))
        for i, tensors in enumerate(draw(st.lists(users, max_size=12)))
    ]


@given(groups())
def test_every_tensor_has_exactly_one_slot_of_its_size(given_groups):
    slots = [slot for pack in plan_groups(given_groups) for slot in pack.slots]
    wanted = {tensor.name: tensor.nbytes for group in given_groups for tensor in group.tensors}
    assert len(slots) == len(wanted)
    assert {slot.name: slot.length for slot in slots} == wanted


@given(groups())
def test_slots_are_aligned_and_do_not_overlap(given_groups):
    for pack in plan_groups(given_groups):
        end = 0
        for slot in pack.slots:
            assert slot.offset % (PAGE if slot.length >= PAGE else CACHE_LINE) == 0
            assert 0 <= slot.offset - end < PAGE
            end = slot.offset + slot.length
        assert pack.size == end


@given(groups())
def test_a_pack_closes_at_its_first_group_that_reaches_the_threshold(given_groups):
    owners = {}
    for number, group in enumerate(given_groups):
        for tensor in group.tensors:
            owners.setdefault(tensor.name, number)
    packs = plan_groups(given_groups)
    small: Counter[str] = Counter()
    for pack in packs:
        members = {owners[slot.name] for slot in pack.slots}
        (kind,) = {given_groups[member].kind for member in members}
        total = sum(slot.length for slot in pack.slots)
        last = sum(slot.length for slot in pack.slots if owners[slot.name] == max(members))
        if len(members) > 1:
            assert last < OWN_BLOB
            assert total - last < OWN_BLOB
        small[kind] += total < OWN_BLOB
    assert all(count <= 1 for count in small.values())


@given(groups())
def test_a_plan_depends_on_names_and_sizes_alone(given_groups):
    assert plan_groups(given_groups) == plan_groups(iter(given_groups))


def test_a_shared_tensor_goes_with_its_first_user():
    table = Tensor("table", OWN_BLOB)
    packs = plan_groups([Group("embed", (table,)), Group("head", (table, Tensor("bias", 8)))])
    assert [[slot.name for slot in pack.slots] for pack in packs] == [["table"], ["bias"]]


def test_two_sizes_for_one_name_are_refused():
    with pytest.raises(BundleError, match="'w' has two sizes"):
        plan_groups([Group("a", (Tensor("w", 1),)), Group("b", (Tensor("w", 2),))])


def test_written_tensors_are_where_the_placements_say(tmp_path):
    data = {"w": b"w" * 300_000, "scale": b"s" * 100, "b": b"b" * 5000}
    given_groups = [
        Group("big", (Tensor("w", 300_000), Tensor("scale", 100))),
        Group("small", (Tensor("b", 5000),)),
    ]
    store = BlobStore(tmp_path)
    placed = write_groups(store, plan_groups(given_groups), data.__getitem__)
    assert placed["w"].blob == placed["scale"].blob != placed["b"].blob
    for name, place in placed.items():
        stored = store.path(place.blob.digest).read_bytes()
        assert stored[place.offset : place.offset + place.length] == data[name]
        store.verify(place.blob)


def test_one_changed_tensor_changes_one_blob(tmp_path):
    tensors = [Tensor(f"w{i}", 50_000) for i in range(12)] + [Tensor("big", OWN_BLOB)]
    packs = plan_groups(Group(tensor.name, (tensor,)) for tensor in tensors)
    store = BlobStore(tmp_path)

    def stored(changed: str) -> set[str]:
        placed = write_groups(
            store,
            packs,
            lambda name: (
                (name + changed * (name == "w3"))
                .encode()
                .ljust(next(tensor.nbytes for tensor in tensors if tensor.name == name))
            ),
        )
        return {place.blob.digest for place in placed.values()}

    before, after = stored(""), stored("changed")
    assert len(before) > 2
    assert len(before - after) == len(after - before) == 1


def test_bytes_of_another_size_than_planned_are_refused(tmp_path):
    packs = plan_groups([Group("node", (Tensor("w", 10),))])
    with pytest.raises(BundleError, match="9 bytes instead of the 10 planned"):
        write_groups(BlobStore(tmp_path), packs, lambda name: b"123456789")
