/* An NVML without a GPU: libnvidia-ml.so.1 for the unmodified pynvml.
 *
 * Power P(t) is a trace of steps on a virtual clock. The energy counter is its true integral, times a
 * gain, quantised to a tick and up to `lag` ticks late, each by another share; the power reading is the mean of the last `window` seconds, anew every
 * `period`. Every read of either takes `latency` seconds of the clock. The fake_* functions drive it.
 */
#include <math.h>
#include <time.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT = 7, LOST_GPU = 15 };
enum { INVALID = 2, AVERAGE = 185, INSTANT = 186, SW_POWER_CAP = 4, UINT = 1 };

typedef enum {
    OK, LOST, UNSUPPORTED, FORBIDDEN, STUCK, RESET, BACKWARDS, THROTTLED, MIG, VGPU, NO_COUNTER
} Mode;

typedef struct { const char *uuid, *bus; char name[64]; } Device;
static Device devices[2] = {
    {"GPU-aaaaaaaa-0000-1111-2222-333333333333", "00000000:01:00.0", "Fake H200"},
    {"GPU-bbbbbbbb-0000-1111-2222-333333333333", "00000000:41:00.0", "Fake H200"},
};

static double now, latency = 0.0002, origin;
static double *times, *watts, *joules;
static int steps;
static double tick = 0.1, tick_phase, gain = 1.0, lag;
static double window = 1.0, period = 0.1, power_phase;
static int fields = 1, major = 9, minor = 0;
static Mode mode;
static double mode_at;
static unsigned pids[8];
static int n_pids;
static unsigned graphics_pid;

/* Joules from the beginning of the trace to t; the first and last step go on for ever. */
static double integral(double t) {
    int low = 0, high = steps - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (times[middle] <= t) low = middle; else high = middle - 1;
    }
    return joules[low] + watts[low] * (t - times[low]);
}

void fake_set_trace(int n, const double *t, const double *w) {
    times = realloc(times, n * sizeof *times);
    watts = realloc(watts, n * sizeof *watts);
    joules = realloc(joules, n * sizeof *joules);
    memcpy(times, t, n * sizeof *times);
    memcpy(watts, w, n * sizeof *watts);
    joules[0] = 0;
    for (int i = 1; i < n; i++) joules[i] = joules[i - 1] + w[i - 1] * (t[i] - t[i - 1]);
    steps = n;
}
void fake_set_time(double t) { now = t; }
double fake_time(void) { return now; }
void fake_advance(double s) { now += s; }

/* From now on the clock is the machine's. */
void fake_follow(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); origin = t.tv_sec + 1e-9 * t.tv_nsec; }
static void look(void) {
    if (origin == 0) { now += latency; return; }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec + 1e-9 * t.tv_nsec - origin;
}
double fake_joules(double from, double to) { return integral(to) - integral(from); }
void fake_set_latency(double s) { latency = s; }
void fake_set_counter(double tick_s, double phase_s, double g) { tick = tick_s; tick_phase = phase_s; gain = g; }
void fake_set_lag(double ticks) { lag = ticks; }
void fake_set_power(double window_s, double period_s, double phase_s, int has_fields) {
    window = window_s; period = period_s; power_phase = phase_s; fields = has_fields;
}
void fake_set_capability(int a, int b) { major = a; minor = b; }
void fake_set_mode(int m, double at) { mode = m; mode_at = at; }
void fake_set_processes(int n, const unsigned *p) { n_pids = n; memcpy(pids, p, n * sizeof *p); }
void fake_set_graphics(int pid) { graphics_pid = (unsigned)pid; }
void fake_set_name(int index, const char *name) { strncpy(devices[index].name, name, 63); }

static int active(Mode m) { return mode == m && now >= mode_at; }
static int fault(void) {
    if (active(LOST)) return LOST_GPU;
    if (active(UNSUPPORTED)) return NOT_SUPPORTED;
    if (active(FORBIDDEN)) return NO_PERMISSION;
    return SUCCESS;
}

static double at_tick(double t) {
    double number = floor((t - tick_phase) / tick), share = fabs(fmod(sin(number * 12.9898) * 43758.5453, 1.0));
    return tick_phase + (number - lag * share) * tick;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *mj) {
    (void)d;
    if (mode == NO_COUNTER) return NOT_SUPPORTED;
    if (fault()) return fault();
    look();
    double value = 5000.0 + integral(at_tick(active(STUCK) ? mode_at : now));
    if (active(RESET)) value = integral(at_tick(now)) - integral(mode_at);
    if (active(BACKWARDS)) value -= 50.0;
    *mj = value > 0 ? (unsigned long long)(1000.0 * gain * value) : 0;
    return SUCCESS;
}

static unsigned shown_mw(double over) {
    double update = power_phase + floor((now - power_phase) / period) * period;
    return (unsigned)(1000.0 * gain * (integral(update) - integral(update - over)) / over);
}

int nvmlDeviceGetPowerUsage(Device *d, unsigned *mw) {
    (void)d;
    if (fault()) return fault();
    look();
    *mw = shown_mw(window);
    return SUCCESS;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    int type, result;
    union { double d; unsigned ui; unsigned long long ull; } value;
} Field;

/* `fields`: bit 0 has AVERAGE (over 1 s), bit 1 has INSTANT (over `window`). */
int nvmlDeviceGetFieldValues(Device *d, int n, Field *f) {
    (void)d;
    if (fault()) return fault();
    look();
    for (int i = 0; i < n; i++) {
        int average = f[i].field == AVERAGE && fields & 1, instant = f[i].field == INSTANT && fields & 2;
        f[i].result = average || instant ? SUCCESS : NOT_SUPPORTED;
        f[i].type = UINT;
        f[i].value.ui = average ? shown_mw(1.0) : instant ? shown_mw(window) : 0;
    }
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned f) { (void)f; return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int e) {
    switch (e) {
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case LOST_GPU: return "GPU is lost";
    default: return "Fake Error";
    }
}
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "999.99", n); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Device **d) {
    if (i >= 2) return INVALID;
    *d = &devices[i];
    return SUCCESS;
}
static int by_text(const char *s, Device **d, int bus) {
    for (int i = 0; i < 2; i++) {
        const char *key = bus ? devices[i].bus : devices[i].uuid;
        if (!strcmp(key, s) || (bus && !strcmp(key + 4, s))) { *d = &devices[i]; return SUCCESS; }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *s, Device **d) { return by_text(s, d, 0); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *s, Device **d) { return by_text(s, d, 1); }
int nvmlDeviceGetUUID(Device *d, char *s, unsigned n) { strncpy(s, d->uuid, n); return SUCCESS; }
int nvmlDeviceGetName(Device *d, char *s, unsigned n) { strncpy(s, d->name, n); return SUCCESS; }

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Device *d, Pci *p) {
    memset(p, 0, sizeof *p);
    strncpy(p->bus_id, d->bus, 31);
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(Device *d, int *a, int *b) { (void)d; *a = major; *b = minor; return SUCCESS; }
int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *mw) { (void)d; *mw = 700000; return SUCCESS; }
int nvmlDeviceGetClockInfo(Device *d, int kind, unsigned *mhz) { (void)d; *mhz = kind == 1 ? 1980 : 3201; return SUCCESS; }
int nvmlDeviceGetTemperature(Device *d, int kind, unsigned *c) { (void)d; (void)kind; *c = 40 + (unsigned)now % 20; return SUCCESS; }
typedef struct { unsigned version; int sensor, temperature; } Temperature;
int nvmlDeviceGetTemperatureV(Device *d, Temperature *t) { (void)d; t->temperature = 40 + (int)now % 20; return SUCCESS; }
int nvmlDeviceGetPerformanceState(Device *d, int *p) { (void)d; *p = 0; return SUCCESS; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *d, unsigned long long *r) {
    (void)d;
    /* only for a second: reads at the begin and end of the window alone would miss it */
    *r = mode == THROTTLED && now >= mode_at && now < mode_at + 1 ? SW_POWER_CAP : 0;
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *r) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(d, r);
}
int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    (void)d;
    *current = *pending = mode == MIG;
    return SUCCESS;
}
int nvmlDeviceGetVirtualizationMode(Device *d, int *m) { (void)d; *m = mode == VGPU ? 2 : 0; return SUCCESS; }

typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } Process;
static int list(const unsigned *from, int count, unsigned *n, Process *p) {
    unsigned room = *n;
    *n = count;
    if (room < (unsigned)count) return INSUFFICIENT;
    for (int i = 0; i < count; i++) p[i] = (Process){from[i], 1 << 20, 0, 0};
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *n, Process *p) {
    (void)d;
    return list(pids, n_pids, n, p);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *d, unsigned *n, Process *p) {
    (void)d;
    return list(&graphics_pid, graphics_pid != 0, n, p);
}
