/* Measure the limits of one core while other cores do the same: print GFLOP/s of float32, GFLOP/s of float64, GB/s of memory,
 * and GB/s of arrays of 16 KiB and of each four times as much up to 1 MiB.
 *
 * The peak is that of chains of fused multiply-adds, with enough independent chains to hide their latency. The
 * bandwidth is the higher one of reading an array and of STREAM's triad; the arrays are far larger than the caches. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __AVX512F__
#define WIDTH 64
#elif defined __AVX__
#define WIDTH 32
#else
#define WIDTH 16
#endif
enum { CHAINS = 12, ROUNDS = 200000, ATTEMPTS = 12, LENGTH = 16 << 20 };

static volatile double sink; /* the compiler would not compute results that nobody uses */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static double larger(double a, double b) { return a > b ? a : b; }

#define PEAK(type)                                                                        \
    static double peak_##type(void) {                                                     \
        typedef type vector __attribute__((vector_size(WIDTH)));                          \
        enum { LANES = WIDTH / sizeof(type) };                                            \
        vector sum[CHAINS] = {0}, factor, term;                                           \
        double best = 0;                                                                  \
        for (int i = 0; i < LANES; i++) factor[i] = (type)0.999, term[i] = (type)1;       \
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {                            \
            double begin = now();                                                         \
            for (int i = 0; i < ROUNDS; i++)                                              \
                for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * factor + term;         \
            best = larger(best, 2.0 * ROUNDS * CHAINS * LANES / (now() - begin) / 1e9);   \
        }                                                                                 \
        for (int c = 0; c < CHAINS; c++) sink += sum[c][0];                               \
        return best;                                                                      \
    }
PEAK(float)
PEAK(double)

static int64_t read_some(const float *array, int64_t length) {
    typedef int64_t vector __attribute__((vector_size(WIDTH)));
    enum { STEP = WIDTH / sizeof *array };
    vector seen[4] = {0}, loaded;
    for (int64_t i = 0; i < length; i += 4 * STEP)
        for (int k = 0; k < 4; k++) {
            memcpy(&loaded, array + i + k * STEP, sizeof loaded);
            seen[k] ^= loaded;
        }
    return seen[0][0] ^ seen[1][0] ^ seen[2][0] ^ seen[3][0];
}

/* The bandwidth of data of so many bytes, which stays in a cache: the higher one of reading an array, and of adding two. */
static double cached(float *array, int64_t bytes) {
    int64_t length = bytes / sizeof *array, rounds = (32 << 20) / bytes;
    double best = 0;
    for (int attempt = 0; attempt < 4; attempt++) {
        double begin = now();
        for (int64_t round = 0; round < rounds; round++) sink += read_some(array, length);
        double middle = now();
        int64_t third = length / 48 * 16;
        for (int64_t round = 0; round < rounds; round++) {
            float *restrict sum = array;
            const float *a = array + third, *b = array + 2 * third;
            for (int64_t i = 0; i < third; i++) sum[i] = a[i] + b[i];
            __asm__ volatile("" : : "r"(array) : "memory");
        }
        double end = now();
        best = larger(best, (double)bytes * rounds / (middle - begin) / 1e9);
        best = larger(best, 3.0 * third * sizeof *array * rounds / (end - middle) / 1e9);
    }
    return best;
}

static double bandwidth(void) {
    float *a = malloc(LENGTH * sizeof *a), *b = malloc(LENGTH * sizeof *b), *c = malloc(LENGTH * sizeof *c);
    if (!a || !b || !c) return 0;
    for (int i = 0; i < LENGTH; i++) a[i] = b[i] = c[i] = 1;
    double best = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        double begin = now();
        sink += read_some(b, LENGTH);
        double middle = now();
        for (int i = 0; i < LENGTH; i++) a[i] = b[i] + 0.5f * c[i];
        double end = now();
        best = larger(best, LENGTH * sizeof *a / (middle - begin) / 1e9);
        best = larger(best, 3.0 * LENGTH * sizeof *a / (end - middle) / 1e9);
        sink += a[attempt];
    }
    return best;
}

int main(void) {
    static float array[(1 << 20) / sizeof(float)];
    printf("%.3f %.3f %.3f", peak_float(), peak_double(), bandwidth());
    for (int64_t bytes = 16 << 10; bytes <= (int64_t)sizeof array; bytes *= 4) printf(" %.3f", cached(array, bytes));
    puts("");
    return 0;
}
