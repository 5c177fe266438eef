//! Drivers that clean up behind each thread: a Vulkan layer does as NVIDIA's driver was seen to.

use std::fs;
use std::process::Command;

use super::Place;
use super::batching::request;
use crate::common::gpu;

/// Marks each thread that makes an instance, with something to be called at the thread's end, and forgets the mark
/// of the thread that destroys it; the loader unloads the layer then.
const LAYER: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void *(*Proc)(void *, const char *);
struct Link { struct Link *next; Proc proc; void *physical; };
struct Info { int type; const struct Info *next; int function; struct Link *link; };
struct Negotiate { int type; void *next; unsigned version; Proc proc; void *device, *physical; };
static pthread_key_t key;
static void clean(void *mark) { free(mark); }
static Proc next_proc;
static void (*next_destroy)(void *, const void *);
static int create(const struct Info *info, const void *allocator, void **out) {
  struct Info *link = (struct Info *)info->next;
  while (link && !(link->type == 47 && link->function == 0)) link = (struct Info *)link->next;
  next_proc = link->link->proc;
  link->link = link->link->next;
  if (!pthread_key_create(&key, clean)) pthread_setspecific(key, malloc(8));
  int (*next)(const void *, const void *, void **) = next_proc(NULL, "vkCreateInstance");
  int result = next(info, allocator, out);
  if (!result) next_destroy = next_proc(*out, "vkDestroyInstance");
  return result;
}
static void destroy(void *instance, const void *allocator) {
  pthread_setspecific(key, NULL);
  fprintf(stderr, "the layer is done\n");
  next_destroy(instance, allocator);
}
static void *proc(void *instance, const char *name) {
  if (!strcmp(name, "vkCreateInstance")) return (void *)create;
  if (!strcmp(name, "vkDestroyInstance")) return (void *)destroy;
  return next_proc ? next_proc(instance, name) : NULL;
}
__attribute__((visibility("default"))) int vkNegotiateLoaderLayerInterfaceVersion(struct Negotiate *asked) {
  asked->version = 2;
  asked->proc = proc;
  asked->device = asked->physical = NULL;
  return 0;
}
"#;

const MANIFEST: &str = r#"{"file_format_version": "1.1.2", "layer": {"name": "VK_LAYER_PIPO_threads",
    "type": "INSTANCE", "library_path": "./liblayer.so", "api_version": "1.3.0", "implementation_version": "1",
    "description": "marks threads", "library_arch": "64"}}"#;

/// The engine's thread may be the last that has the driver, and unload it, before the one that opened it ends.
#[test]
fn nobody_calls_a_driver_that_is_unloaded() {
    if gpu().facts.info.backend != wgpu::Backend::Vulkan {
        return eprintln!("SKIPPED: no Vulkan, so no layers");
    }
    let place = Place::new();
    place.write("layer.c", LAYER);
    place.write("layer.json", MANIFEST);
    let mut compiler = Command::new("cc");
    compiler.args([
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-Wl,-Bsymbolic",
        "-o",
        "liblayer.so",
        "layer.c",
    ]);
    match compiler.args(["-lpthread"]).current_dir(place.folder.path()).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(problem) => return eprintln!("SKIPPED: no C compiler ({problem})"),
    }
    place.write("in.jsonl", request("one", "One day", 3));
    for line in ["batch in.jsonl -o out.jsonl", "run -p One -n 3"] {
        let mut command = place.command(line);
        command.env("VK_LAYER_PATH", place.folder.path()).env("VK_INSTANCE_LAYERS", "VK_LAYER_PIPO_threads");
        let outcome = super::Outcome::of(command.output().unwrap()).succeeded(line);
        assert!(outcome.stderr.contains("the layer is done"), "{line}: {}", outcome.stderr);
    }
    assert_eq!(fs::read_to_string(place.path("out.jsonl")).unwrap().lines().count(), 1);
}
