/* libcuda.so.1 on a host without a GPU: device memory is host memory, a stream works at once or, while
   it is captured, is recorded; a graph plays what was recorded. Every pointer is checked against what is
   allocated, so a copy past the end of an allocation fails here as it would there. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { char *base; size_t bytes; } Block;
static Block blocks[4096];
static int block_count;
static int64_t in_use, peak;

typedef void (*Host)(void *);
typedef struct { int kind; char *to; const char *from; size_t to_pitch, from_pitch, width, height; Host call; void *data; } Work;
typedef struct { Work *work; int count; } Tape;
static Tape *tape;

static int inside(const void *at, size_t bytes) {
  const char *p = at;
  for (int i = 0; i < block_count; i++)
    if (blocks[i].base && p >= blocks[i].base && p + bytes <= blocks[i].base + blocks[i].bytes) return 1;
  return 0;
}
static void perform(const Work *w) {
  if (w->kind == 1) w->call(w->data);
  else for (size_t row = 0; row < w->height; row++)
    memcpy(w->to + row * w->to_pitch, w->from + row * w->from_pitch, w->width);
}
static int queue(Work w) {
  if (!tape) { perform(&w); return 0; }
  tape->work = realloc(tape->work, (tape->count + 1) * sizeof(Work));
  tape->work[tape->count++] = w;
  return 0;
}
static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

int cuInit(unsigned flags) { return getenv("FAKE_CUDA_NO_DEVICE") ? 100 : 0; }
int cuGetErrorString(int code, const char **text) {
  *text = code == 100 ? "no CUDA-capable device is detected" : code == 2 ? "out of memory" : "invalid argument";
  return 0;
}
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? 101 : 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &blocks; return 0; }
int cuCtxSetCurrent(void *context) { return context == &blocks ? 0 : 1; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake GPU", size); return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = 0x11 * i;
  return 0;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? 8 : which == 76 ? 9 : -1;
  return 0;
}
int cuStreamCreate(void **stream, unsigned flags) { *stream = &tape; return flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void *stream) { return stream == &tape && !tape ? 0 : 1; }

int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  if (tape) return 1;
  char *base = malloc(bytes);
  memset(base, 0xA5, bytes);
  int slot = 0;
  while (slot < block_count && blocks[slot].base) slot++;
  if (slot == block_count) block_count++;
  blocks[slot] = (Block){base, bytes};
  *pointer = (uint64_t)base;
  in_use += bytes;
  if (in_use > peak) peak = in_use;
  return 0;
}
int cuMemFree_v2(uint64_t pointer) {
  for (int i = 0; i < block_count; i++)
    if (blocks[i].base == (char *)pointer) {
      memset(blocks[i].base, 0x5A, blocks[i].bytes);
      free(blocks[i].base);
      in_use -= blocks[i].bytes;
      blocks[i].base = 0;
      return 0;
    }
  return 1;
}
int64_t fakeInUse(void) { return in_use; }

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  if (!inside((void *)to, bytes)) return 1;
  return queue((Work){0, (char *)to, from, bytes, bytes, bytes, 1});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  if (!inside((void *)from, bytes)) return 1;
  return queue((Work){0, to, (char *)from, bytes, bytes, bytes, 1});
}
typedef struct {
  size_t sx, sy; int st; const void *sh; uint64_t sd; void *sa; size_t sp;
  size_t dx, dy; int dt; void *dh; uint64_t dd; void *da; size_t dp;
  size_t width, height;
} Rows;
int cuMemcpy2DAsync_v2(const Rows *r, void *stream) {
  if (r->st != 2 || r->dt != 2 || r->sx || r->sy || r->dx || r->dy || r->width > r->sp || r->width > r->dp) return 1;
  if (!inside((void *)r->sd, (r->height - 1) * r->sp + r->width)) return 1;
  if (!inside((void *)r->dd, (r->height - 1) * r->dp + r->width)) return 1;
  return queue((Work){0, (char *)r->dd, (char *)r->sd, r->dp, r->sp, r->width, r->height});
}
int cuLaunchHostFunc(void *stream, Host call, void *data) {
  return queue((Work){1, 0, 0, 0, 0, 0, 0, call, data});
}

int cuEventCreate(void **event, unsigned flags) { *event = calloc(1, sizeof(double)); return 0; }
int cuEventRecord(void *event, void *stream) { *(double *)event = now_ms(); return 0; }
int cuEventDestroy_v2(void *event) { free(event); return 0; }
int cuEventSynchronize(void *event) { return 0; }
int cuEventElapsedTime(float *ms, void *from, void *to) { *ms = *(double *)to - *(double *)from; return 0; }

int cuStreamBeginCapture_v2(void *stream, int mode) {
  if (tape || mode != 1) return 1;
  tape = calloc(1, sizeof(Tape));
  return 0;
}
int cuStreamEndCapture(void *stream, void **graph) { *graph = tape; tape = 0; return *graph ? 0 : 1; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  *executable = graph;
  return flags ? 1 : 0;
}
int cuGraphLaunch(void *executable, void *stream) {
  Tape *t = executable;
  for (int i = 0; i < t->count; i++) perform(&t->work[i]);
  return 0;
}
int cuGraphExecDestroy(void *executable) { return 0; }
int cuGraphDestroy(void *graph) { free(((Tape *)graph)->work); free(graph); return 0; }
