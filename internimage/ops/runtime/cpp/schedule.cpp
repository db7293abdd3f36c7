// Entry points of the library: chooses the instruction set once, and hands units to a team of threads.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "abi.h"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#define DECLARE(isa)                                                             \
    Kernel<WindowArgs> window_kernel_##isa(int64_t data_type, bool backward);    \
    Kernel<AttentionArgs> attention_kernel_##isa(int64_t data_type, bool backward); \
    Kernel<RowArgs> row_kernel_##isa(int64_t data_type, int64_t operation);      \
    Kernel<DepthwiseArgs> depthwise_kernel_##isa(int64_t data_type);
#define DECLARE_WIDE(isa)                                                        \
    Kernel<LinearArgs> linear_kernel_##isa(int64_t data_type);                   \
    Kernel<PerceptronArgs> perceptron_kernel_##isa(int64_t data_type);           \
    Kernel<ConvArgs> conv_kernel_##isa(int64_t data_type);
DECLARE(baseline)
#if defined(INTERNIMAGE_X86)
DECLARE(avx2)
DECLARE(avx512)
#if defined(INTERNIMAGE_AVX512BF16)
DECLARE(avx512bf16)
#endif
#if defined(INTERNIMAGE_WIDE_KERNELS)
#include <cpuid.h>
DECLARE_WIDE(avx512)
#if defined(INTERNIMAGE_AVX512BF16)
DECLARE_WIDE(avx512bf16)
#endif
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif
#endif

namespace {

// kAmx runs the kernels of kAvx512Bf16; only bfloat16 linear layers go elsewhere, to a library that uses the tiles.
enum Isa : int { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kAmx = 4 };

#if defined(INTERNIMAGE_X86) && defined(_MSC_VER) && !defined(__clang__)
Isa detect() {
    int info[4];
    __cpuidex(info, 1, 0);
    const bool saves_state = (info[2] >> 27) & 1, has_fma = (info[2] >> 12) & 1, has_f16c = (info[2] >> 29) & 1;
    if (!saves_state || !has_fma || !has_f16c || (_xgetbv(0) & 6) != 6) return kBaseline;
    __cpuidex(info, 7, 0);
    const bool has_avx2 = (info[1] >> 5) & 1;
    const unsigned wanted = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
    const bool has_avx512 = (unsigned(info[1]) & wanted) == wanted && (_xgetbv(0) & 0xe6) == 0xe6;
    return !has_avx2 ? kBaseline : has_avx512 ? kAvx512 : kAvx2;
}
#elif defined(INTERNIMAGE_X86)
#if defined(INTERNIMAGE_AVX512BF16)
// Whether the processor has AMX tiles for bfloat16, and the system saves them.
bool has_amx() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !((d >> 22) & (d >> 24) & 1)) return false;
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((low >> 17) & 3) == 3;
}
#endif
Isa detect() {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return kBaseline;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (!wide) return kAvx2;
#if defined(INTERNIMAGE_AVX512BF16)
    if (__builtin_cpu_supports("avx512bf16")) return has_amx() ? kAmx : kAvx512Bf16;
#endif
    return kAvx512;
}
#else
Isa detect() { return kBaseline; }
#endif

std::atomic<int>& chosen_isa() {
    static std::atomic<int> isa{detect()};
    return isa;
}

#if defined(INTERNIMAGE_AVX512BF16)
#define CHOOSE_BF16(stem, ...) chosen_isa() >= kAvx512Bf16 ? stem##_avx512bf16(__VA_ARGS__) :
#else
#define CHOOSE_BF16(stem, ...)
#endif
#if defined(INTERNIMAGE_X86)
#define CHOOSE(stem, ...)                                                        \
    (CHOOSE_BF16(stem, __VA_ARGS__)                                              \
     chosen_isa() == kAvx512 ? stem##_avx512(__VA_ARGS__)                        \
     : chosen_isa() == kAvx2 ? stem##_avx2(__VA_ARGS__)                          \
                             : stem##_baseline(__VA_ARGS__))
#else
#define CHOOSE(stem, ...) stem##_baseline(__VA_ARGS__)
#endif
#if defined(INTERNIMAGE_WIDE_KERNELS)
#define CHOOSE_WIDE(stem, ...) (CHOOSE_BF16(stem, __VA_ARGS__) stem##_avx512(__VA_ARGS__))
#endif

// One thread's share of a call, a run of units: neighboring units read the same memory.
struct Share {
    alignas(64) std::atomic<int64_t> next{0};
    int64_t end = 0;
    std::atomic<bool> taken{false};
};

// One call: each thread works off its own share, then helps with the others'.
template <class Args>
struct Job {
    const Args& args;
    Kernel<Args> kernel;
    Share* shares;
    int64_t threads;
    std::atomic<bool> out_of_memory{false};
};

// The number of a free share.  A thread keeps that of the call before, whatever it was for: its caches hold the results.
int64_t take_share(Share* shares, int64_t threads) {
    static thread_local int64_t home = 0;
    for (int64_t i = 0; i < threads; ++i) {
        const int64_t share = (home + i) % threads;
        if (shares[share].taken.exchange(true)) continue;
        if (i > 0) home = share;
        return share;
    }
    return 0;
}

template <class Args>
void work(void* data) {
    Job<Args>& job = *static_cast<Job<Args>*>(data);
    const size_t bytes = size_t(job.kernel.scratch_bytes(job.args)) + 64;
    std::unique_ptr<char, decltype(&std::free)> memory(static_cast<char*>(std::malloc(bytes)), &std::free);
    if (!memory) {
        job.out_of_memory = true;
        return;
    }
    char* scratch = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64);
    const int64_t own = take_share(job.shares, job.threads);
    for (int64_t i = 0; i < job.threads; ++i) {
        Share& share = job.shares[(own + i) % job.threads];
        for (int64_t unit = share.next++; unit < share.end; unit = share.next++) job.kernel.run(job.args, unit, scratch);
    }
}

// 0: done; 1: not enough memory for the scratch buffers; 2 (linear layers): no kernel in this instruction set.
template <class Args>
int run(const Args& args, Kernel<Args> kernel) {
    const int64_t units = kernel.units(args), wanted = args.threads < units ? args.threads : units;
    const int64_t threads = wanted < 1 ? 1 : wanted;
    const std::unique_ptr<Share[]> shares(new (std::nothrow) Share[size_t(threads)]);
    if (!shares) return 1;
    for (int64_t i = 0; i < threads; ++i) {
        shares[i].next = units * i / threads;
        shares[i].end = units * (i + 1) / threads;
    }
    Job<Args> job{args, kernel, shares.get(), threads};
    if (threads == 1) {
        work<Args>(&job);
    } else if (args.start_team) {
        args.start_team(&work<Args>, &job, unsigned(threads), 0);
    } else {
        std::vector<std::thread> team;
        for (int64_t i = 1; i < threads; ++i) team.emplace_back(&work<Args>, &job);
        work<Args>(&job);
        for (std::thread& thread : team) thread.join();
    }
    return job.out_of_memory ? 1 : 0;
}

}  // namespace

EXPORT int internimage_window_forward(const WindowArgs* args) {
    return run(*args, CHOOSE(window_kernel, args->data_type, false));
}
EXPORT int internimage_window_backward(const WindowArgs* args) {
    return run(*args, CHOOSE(window_kernel, args->data_type, true));
}
EXPORT int internimage_attention_forward(const AttentionArgs* args) {
    return run(*args, CHOOSE(attention_kernel, args->data_type, false));
}
EXPORT int internimage_attention_backward(const AttentionArgs* args) {
    return run(*args, CHOOSE(attention_kernel, args->data_type, true));
}
EXPORT int internimage_rows(const RowArgs* args) {
    return run(*args, CHOOSE(row_kernel, args->data_type, args->operation));
}
EXPORT int internimage_depthwise(const DepthwiseArgs* args) {
    return run(*args, CHOOSE(depthwise_kernel, args->data_type));
}

// Why linear layers of this type should run elsewhere.  0: they need not; 1: the instruction set in use has no kernel
// for them; 2: the processor has AMX tiles for bfloat16, which these kernels do not use.
EXPORT int internimage_linear_missing(int64_t data_type) {
#if defined(INTERNIMAGE_WIDE_KERNELS)
    if (chosen_isa() < kAvx512) return 1;
    return data_type == kBFloat16 && chosen_isa() == kAmx ? 2 : 0;
#else
    (void)data_type;
    return 1;
#endif
}
#if defined(INTERNIMAGE_WIDE_KERNELS)
#define RUN_WIDE(stem, args) chosen_isa() < kAvx512 ? 2 : run(*args, CHOOSE_WIDE(stem, args->data_type))
#else
#define RUN_WIDE(stem, args) ((void)(args), 2)
#endif
EXPORT int internimage_linear(const LinearArgs* args) { return RUN_WIDE(linear_kernel, args); }
EXPORT int internimage_perceptron(const PerceptronArgs* args) { return RUN_WIDE(perceptron_kernel, args); }
EXPORT int internimage_conv(const ConvArgs* args) { return RUN_WIDE(conv_kernel, args); }

// The instruction set in use: 0 baseline, 1 AVX2, 2 AVX-512, 3 AVX-512 with BF16, 4 the same beside AMX.
EXPORT int internimage_instruction_set() { return chosen_isa(); }

// Use at most this instruction set; returns the one then in use.  For tests and measurements.
EXPORT int internimage_limit_instruction_set(int limit) {
    const int best = detect();
    chosen_isa() = limit < best ? (limit < 0 ? 0 : limit) : best;
    return chosen_isa();
}

// Grows when a struct in abi.h changes, so that a stale library is noticed.
EXPORT int internimage_abi_version() { return 7; }
