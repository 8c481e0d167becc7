#!/usr/bin/env python3
"""Mutations of the protocol and the plumbing, each caught by a named test.

Works on a copy of the tree under target/mutants. A mutant is caught when its
test fails; the same tests pass on the unchanged copy first. Arguments pick
mutants by name.
"""
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
RING = "include/gpumailbox/ring.cuh"
OVER = "include/gpumailbox/overwrite.cuh"
NVCC = ROOT / "target" / "toolchain" / "cuda" / "bin" / "nvcc"

# name, file, text, replacement, how to run the test: a suite test, one that needs the library built with
# its CUDA kernels, or a protocol test under a sanitizer.
MUTANTS = [
    ("grants are not combined", RING, "  fetch_min_relaxed(&side->grant, word);\n",
     "  store_relaxed(&side->grant, word);\n", "protocol none"),
    ("the first block to arrive ends the operation", RING,
     "if (static_cast<uint32_t>(arrived) < blocks) return false;", "if (static_cast<uint32_t>(arrived) > 1) return false;",
     "protocol none"),
    ("records are read without acquire", RING, "load_acquire(&ring->writer.committed) - first",
     "load_relaxed(&ring->writer.committed) - first", "protocol thread"),
    ("room is read without acquire", RING, "writer - load_acquire(&ring->reader[r].committed)",
     "writer - load_relaxed(&ring->reader[r].committed)", "protocol thread"),
    ("blocks arrive without order", "include/gpumailbox/platform.cuh",
     "return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);", "return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);",
     "protocol thread"),
    ("indices are published without release", "include/gpumailbox/platform.cuh",
     "v, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)", "v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)", "protocol thread"),
    ("the host is told without release", "include/gpumailbox/platform.cuh",
     "void store_system(T *p, T v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }",
     "void store_system(T *p, T v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }", "protocol thread"),
    ("the ring wraps one slot early", RING, "mask(ring->capacity - 1)", "mask((ring->capacity - 1) >> 1)",
     "suite mailbox::a_full_mailbox_accepts_what_fits_and_an_empty_one_gives_nothing"),
    ("one record too many fits", RING, "ring->capacity - (first - slowest_reader(ring, first))",
     "ring->capacity + 1 - (first - slowest_reader(ring, first))",
     "suite mailbox::a_full_mailbox_accepts_what_fits_and_an_empty_one_gives_nothing"),
    ("the arrival counter is not reset", RING, "  fetch_sub_relaxed(&side->arrivals, all);\n", "",
     "suite ordering::random_operations_on_one_stream_equal_a_queue"),
    ("a bad length is passed over", RING, "        block.lower_word(grant_word(i, GMB_ERROR_BAD_LENGTH));\n", "",
     "suite bad_input::a_bad_length_found_on_the_device_ends_the_push_there"),
    ("a foreign slot is popped", RING, "header[k].lo != t.first + i + 1 || ", "",
     "suite bad_input::a_damaged_slot_ends_the_pop_before_it"),
    ("the count is told before the records move", RING,
     "  const turn t = take_turn(block, ring, side, [&](uint64_t first) {\n    const uint64_t ready",
     "  tell(to, 0, into.max, GMB_OK, 0, 0);\n"
     "  const turn t = take_turn(block, ring, side, [&](uint64_t first) {\n    const uint64_t ready",
     "protocol none"),
    ("a pop does not wait for the push before it", "src/mailbox/submit.rs",
     "            self.push.make_wait(stream)?;\n        }\n", "        }\n",
     "suite gated::a_pop_waits_for_the_push_before_it_and_a_push_for_the_room_it_needs"),
    ("operations of one side do not wait", "src/mailbox/submit.rs",
     "        self.push.make_wait(stream)?;\n        let count",
     "        let count",
     "suite gated::operations_of_one_side_keep_their_order_across_streams"),
    ("operations under way are forgotten", "src/mailbox/side.rs", "later(reached, word >> 24).wrapping_add(coming)",
     "later(reached, word >> 24).wrapping_add(coming * 0)",
     "suite gated::a_push_waits_for_room_that_pushes_before_it_will_have_taken"),
    ("a side is idle while it works", "src/mailbox/side.rs", "& OPERATION_MASK == submitted & OPERATION_MASK",
     "& OPERATION_MASK <= submitted & OPERATION_MASK",
     "suite gated::a_pop_waits_for_the_push_before_it_and_a_push_for_the_room_it_needs"),
    ("a busy token is taken", "src/results.rs", "if state.is_under_way(&self.slot) {\n            return Err(Error::new(",
     "if false {\n            return Err(Error::new(", "suite gated::a_waiting_token_is_busy_and_times_out_without_loss"),
    ("a slot is reused before it is written", "src/results.rs",
     "Some(before) => slots.unwritten.push_back((slot, before)),", "Some(_) => slots.free.push(slot),",
     "suite gated::a_token_dropped_under_way_is_not_reused_before_it_is_written"),
    ("a reused slot keeps its epoch", "src/results.rs", "context.backend().fill(slot.device, 0, SLOT_BYTES",
     "context.backend().fill(slot.device, 0, 0",
     "suite gated::a_token_dropped_under_way_is_not_reused_before_it_is_written"),
    ("what is torn is given out", OVER, "const uint64_t torn = behind(t.first, intact) ? intact - t.first : 0;",
     "const uint64_t torn = behind(t.first, intact) ? intact - intact : 0;", "overwrite none"),
    ("a push writes before it reserves", OVER, "{ store_release(&writer->claimed, end); }",
     "{ (void)writer, (void)end; }", "overwrite none"),
    ("a pop writes more rows than the ring holds", OVER, "    if (ready > ring->capacity) ready = ring->capacity;\n", "",
     "overwrite none"),
    ("a reader's life before counts", "src/mailbox/readers.rs",
     "            side.begin_life(self.push.reached().wrapping_sub(self.capacity));\n", "",
     "suite readers::a_reader_let_in_again_holds_space_from_where_it_begins"),
    ("one stuck event hides the others", "src/events.rs", "const LOOKED_AT: usize = 4;", "const LOOKED_AT: usize = 1;",
     "suite gated::one_stuck_event_does_not_make_the_pool_grow"),
    ("what an ended push wrote over is given out", OVER,
     "  store_relaxed(&side->floor, behind(end, gone) ? end : gone);\n", "", "overwrite none"),
    ("blocks skip differently", OVER, "skip = settle_relaxed(&side->skip, start - before + 1) - 1;",
     "skip = start - before;", "overwrite none"),
    ("a record being replaced is given out", OVER, "*block.word = behind(newest, oldest_intact(ring)) ? 0 : 1;",
     "*block.word = 1;", "overwrite none"),
    ("only the first reader holds space", RING, "    if ((readers >> r & 1) == 0) continue;\n    const",
     "    if (r > 0 || (readers >> r & 1) == 0) continue;\n    const", "suite readers::every_record_reaches_every_reader"),
    ("a reader let out still holds space", "include/gpumailbox/readers.cuh", "load_relaxed(&ring->reader_mask) & ~bit",
     "load_relaxed(&ring->reader_mask) | bit", "suite readers::readers_come_and_go"),
    ("a whole push is taken in part", RING, "whole && grant_count(word) < asked ? 0 : grant_count(word)",
     "grant_count(word)", "suite waiting::waiting_is_all_or_nothing_and_times_out_without_a_trace"),
    ("a pop counts twice towards certain room", "src/mailbox/submit.rs",
     "released.wrapping_add(u64::from(pop.max).min(unread))", "released.wrapping_add(u64::from(pop.max))",
     "suite policies::waiting_equals_the_model"),
    ("a push that overwrites does not wait for pops", "src/mailbox/submit.rs",
     "                    reader.make_wait(stream)?;\n", "",
     "suite gated::a_push_that_overwrites_waits_for_pops_enqueued_before_it"),
    ("an event returns early", "src/events.rs", "        if may_be_pending {\n", "        if may_be_pending && pool.size == 0 {\n",
     "suite gated::an_event_given_back_unreached_is_kept_aside"),
    ("an event is made for each operation", "src/mailbox/side.rs",
     "        let recorded = if self.records { self.event.mark(stream.raw) }",
     "        std::mem::forget(self.event.context().event(EventKind::Untimed)?);\n"
     "        let recorded = if self.records { self.event.mark(stream.raw) }", "kernels hot_path::nothing_is_made_after_warm_up"),
    ("memory over the limit is given out", "src/memory.rs", "self.limit != 0 && used > self.limit",
     "self.limit != 0 && bytes > self.limit", "suite memory::a_limit_holds_and_frees_count"),
    ("a guard ends on any thread", "src/guard.rs", "self.thread != thread_number()", "self.thread == 0",
     "suite guards::a_guard_ended_on_another_thread_stays"),
    ("an inner guard is undone by the outer", "src/guard.rs", "while held > 0 && stack[held - 1].ended {",
     "while held > 0 && stack[..held].iter().any(|e| e.ended) {", "suite guards::guards_dropped_out_of_order_take_effect_in_order"),
    ("a newer layout is attached to", "src/mailbox/attach.rs", "if header.version != GMB_LAYOUT_VERSION {",
     "if header.version < GMB_LAYOUT_VERSION {", "suite placement::what_is_no_mailbox_is_not_attached_to"),
    ("a record of another length is taken for a value", "src/typed.rs",
     "taken.filter(|(header, _)| header.length as usize == size_of::<T>())", "taken.filter(|(header, _)| header.length > 0)",
     "suite typed::values_come_out_as_they_went_in"),
    ("memory is freed twice", "src/memory.rs", "                books.allocations.remove(&address);\n", "",
     "suite memory::memory_freed_twice_or_wrongly_is_refused"),
    ("the old log function stays", "src/log.rs",
     "let next = function.map(|function| (level, function));",
     "let next = function.map(|function| (level, function));\n    if next.is_none() {\n        return Ok(());\n    }",
     "suite log::messages_come_by_level_and_end_with_the_function"),
    ("a host stream runs ahead of an event", "src/backend/host/stream.rs",
     "Task::Wait(completion) => completion.wait(),", "Task::Wait(_) => {}",
     "suite gated::a_pop_waits_for_the_push_before_it_and_a_push_for_the_room_it_needs"),
]


def passes(how, label="unchanged"):
    """True when the test passes; a test that hangs has noticed, too."""
    # build.rs watches GMB_CHAOS, and only "1" means something to it: a label of
    # its own makes cargo compile each mutant whatever the files' times say.
    kind, what = how.split(" ", 1)
    environment = dict(os.environ, GMB_CUDA="OFF", GMB_CHAOS=label, GMB_TEST_SEED="1",
                       CARGO_TARGET_DIR=str(COPY / "target"))
    environment.pop("GMB_CUDA_ARCHS", None)
    if kind == "kernels":
        environment.update(GMB_CUDA="ON", GMB_CUDA_ARCHS="90")
        if NVCC.exists():
            environment["NVCC"] = str(NVCC)
    if kind in ("protocol", "overwrite"):
        program = COPY / "protocol"
        flags = [] if what == "none" else [f"-fsanitize={what}"]
        build = ["c++", "-std=c++17", "-O1", "-g", "-DGMB_CHAOS", "-Iinclude", *flags, f"tests/protocol/{kind}.cpp",
                 "-o", str(program), "-lpthread"]
        command = [str(program), "1", "20000"]
    else:
        build = ["cargo", "test", "--locked", "--quiet", "--no-run", "--test", "suite"]
        command = ["cargo", "test", "--locked", "--quiet", "--test", "suite", "--", "--exact", what]
    built = subprocess.run(build, cwd=COPY, env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"error: the mutant does not compile:\n{built.stderr[-2000:]}")
    try:
        ran = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    if kind in ("suite", "kernels") and ran.returncode == 0 and "1 passed" not in ran.stdout:
        sys.exit(f"error: no such test: {what}")
    return ran.returncode == 0


def main():
    wanted = [m for m in MUTANTS if not sys.argv[1:] or any(a in m[0] for a in sys.argv[1:])]
    if os.environ.get("GMB_CUDA") == "OFF":
        for name, *_ in (m for m in wanted if m[4].startswith("kernels")):
            print(f"left out, for GMB_CUDA=OFF: {name}")
        wanted = [m for m in wanted if not m[4].startswith("kernels")]
    COPY.mkdir(parents=True, exist_ok=True)
    for folder in ("src", "include", "kernels", "tests", "benches"):
        shutil.rmtree(COPY / folder, ignore_errors=True)
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, COPY / folder)
    for file in ("Cargo.toml", "Cargo.lock", "build.rs", "README.md"):
        shutil.copy(ROOT / file, COPY / file)
    for name, file, text, *_ in wanted:
        count = (COPY / file).read_text().count(text) if (COPY / file).exists() else 0
        if count != 1:
            sys.exit(f"error: {name}: its text stands {count} times in {file}")
    for how in dict.fromkeys(m[4] for m in wanted):
        if not passes(how):
            sys.exit(f"error: {how} fails without a mutation")
    caught = 0
    for name, file, text, replacement, how in wanted:
        path = COPY / file
        original = path.read_text()
        path.write_text(original.replace(text, replacement))
        survived = passes(how, name)
        path.write_text(original)
        caught += not survived
        print(f"{'SURVIVED' if survived else 'caught'}: {name} ({how})", flush=True)
    print(f"{caught} passed, {len(wanted) - caught} failed")
    return 0 if caught == len(wanted) else 1


sys.exit(main())
