//! Ranges for NVIDIA's profilers: a tool made here is loaded as one of those would be, and writes down what it is told.

use super::support::*;
use gpumailbox::*;
use std::path::PathBuf;
use std::process::Command;

/// The tool: `NVTX_INJECTION64_PATH` names it. What it needs of NVTX's interface is written out.
const TOOL: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*function)(void);
struct callbacks {
  size_t struct_size;
  int (*table)(int module, function ***out, unsigned *size);
};
/* The first words of nvtxEventAttributes_t. */
struct attributes {
  uint16_t version, size;
  uint32_t category;
  int32_t color_type;
  uint32_t color;
  int32_t payload_type, reserved;
  uint64_t payload;
  int32_t message_type;
  const char *message;
};

static FILE *out;
static _Thread_local int depth;
static char domain;

static void *create(const char *name) {
  fprintf(out, "domain %s\n", name);
  fflush(out);
  return &domain;
}
static int push(void *of, const struct attributes *range) {
  if (of != &domain || range->message_type != 1) abort();
  fprintf(out, "push %d %s\n", depth, range->message);
  fflush(out);
  return depth++;
}
static int pop(void *of) {
  if (of != &domain || depth == 0) abort();
  fprintf(out, "pop %d\n", --depth);
  fflush(out);
  return depth;
}

int InitializeInjectionNvtx2(const void *(*find)(uint32_t)) {
  const struct callbacks *told = find(1);
  function **table = NULL;
  unsigned size = 0;
  out = fopen(getenv("GMB_TEST_RANGES"), "w");
  if (!told || !out || !told->table(5, &table, &size) || size <= 12) return 0;
  *table[4] = (function)push;
  *table[5] = (function)pop;
  *table[12] = (function)create;
  return 1;
}
"#;

const CHILD: &str = "GMB_TEST_RANGES";

#[test]
fn ranges_are_there_for_a_profiler() {
    if std::env::var_os(CHILD).is_some() {
        return use_the_library();
    }
    let folder = std::env::temp_dir().join(format!("gmb-profiler-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, tool, told) = (folder.join("tool.c"), folder.join("tool.so"), folder.join("ranges.txt"));
    std::fs::write(&source, TOOL).unwrap();
    let made = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-w", "-o"])
        .args([&tool, &source])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    child_passes(
        "profiler::ranges_are_there_for_a_profiler",
        &[(CHILD, &text(&told)), ("NVTX_INJECTION64_PATH", &text(&tool))],
    );
    let ranges = std::fs::read_to_string(&told).unwrap_or_default();
    std::fs::remove_dir_all(&folder).unwrap();
    if !cfg!(gmb_nvtx) {
        assert_eq!(ranges, "", "built without NVTX");
        return;
    }
    // The child has one thread that calls: its ranges nest.
    assert!(ranges.starts_with("domain gpumailbox\n"), "{ranges}");
    let count = |line: &str| ranges.lines().filter(|l| *l == line).count();
    assert_eq!(
        (count("push 0 push"), count("push 0 pop"), count("push 0 wait for a result")),
        (5, 5, 10),
        "{ranges}"
    );
    assert_eq!((count("push 0 open a context"), count("push 0 make a mailbox")), (1, 1), "{ranges}");
    let begun = ranges.lines().filter(|line| line.starts_with("push")).count();
    assert_eq!(begun, ranges.lines().filter(|line| line.starts_with("pop")).count(), "{ranges}");
    assert!(ranges.ends_with("pop 0\n"), "{ranges}");
}

fn use_the_library() {
    let context = context();
    let (mailbox, token) = (mailbox(&context, 8, 16), Token::new(&context).unwrap());
    let rows = context.device_buffer(128).unwrap();
    let push = push_of(&rows, 8);
    let pop = Pop { max: 8, records: rows.address(), ..Default::default() };
    let stream = context.stream().unwrap();
    for _ in 0..5 {
        assert_eq!(push_and_wait(&mailbox, &push, stream.get(), &token).count, 8);
        assert_eq!(pop_and_wait(&mailbox, &pop, stream.get(), &token).count, 8);
    }
}
