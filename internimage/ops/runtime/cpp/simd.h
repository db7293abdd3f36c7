// Fixed-length vectors over compiler vector extensions, with plain arrays where a compiler has none.
// Everything sits in an unnamed namespace: this header is compiled once per instruction set, and no copy may be
// shared between them by the linker.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__F16C__) && !defined(_MSC_VER)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__AVX512F__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX512_VECTORS 1  // Vec<float, 16> and __m512 are one
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define ALWAYS_INLINE __forceinline
#define RESTRICT __restrict
#else
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define RESTRICT __restrict__
#endif

namespace {

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#if defined(__GNUC__) || defined(__clang__)
template <class T, int L>
struct VectorOf {
    typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T, int L>
using Vec = typename VectorOf<T, L>::type;

template <class V, int... I>
ALWAYS_INLINE auto pick(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, I...);
}
template <int L, int... I>
ALWAYS_INLINE auto high_half(Vec<float, L> v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I + L / 2)...);
}
template <int L, int... I>
ALWAYS_INLINE auto high_half(Vec<double, L> v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I + L / 2)...);
}
// The elements at even and at odd places of the two vectors a, b one after the other.
template <class V, int... I>
ALWAYS_INLINE void split_pairs(V a, V b, V& even, V& odd, std::integer_sequence<int, I...>) {
    even = __builtin_shufflevector(a, b, (2 * I)...);
    odd = __builtin_shufflevector(a, b, (2 * I + 1)...);
}
template <class V, int... I>
ALWAYS_INLINE void join_pairs(V even, V odd, V& a, V& b, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    a = __builtin_shufflevector(even, odd, (I / 2 + I % 2 * L)...);
    b = __builtin_shufflevector(even, odd, (L / 2 + I / 2 + I % 2 * L)...);
}
// The four numbers at `p`, again and again.
template <class T, int L>
ALWAYS_INLINE Vec<T, L> repeat4(const T* p) {
    Vec<T, L> v;
    if constexpr (L == 4) std::memcpy(&v, p, sizeof(v));
#if defined(__AVX2__)
    else if constexpr (sizeof(v) == 32) v = (Vec<T, L>)_mm256_broadcast_ps((const __m128*)p);
#endif
#if defined(__AVX512F__)
    else if constexpr (sizeof(T) == 4) v = (Vec<T, L>)_mm512_broadcast_f32x4(_mm_loadu_ps((const float*)p));
    else v = (Vec<T, L>)_mm512_broadcast_f64x4(_mm256_loadu_pd((const double*)p));
#endif
    return v;
}
// Each of the four numbers at `p` in every lane of a vector: one load, then shuffles that stay within four lanes.
template <class T, int L, int... I>
ALWAYS_INLINE void spread4(const T* p, Vec<T, L>& a, Vec<T, L>& b, Vec<T, L>& c, Vec<T, L>& d,
                           std::integer_sequence<int, I...>) {
    const Vec<T, L> all = repeat4<T, L>(p);
    a = __builtin_shufflevector(all, all, (I / 4 * 4)...);
    b = __builtin_shufflevector(all, all, (I / 4 * 4 + 1)...);
    c = __builtin_shufflevector(all, all, (I / 4 * 4 + 2)...);
    d = __builtin_shufflevector(all, all, (I / 4 * 4 + 3)...);
}
template <class T, int L>
ALWAYS_INLINE void spread4(const T* p, Vec<T, L>& a, Vec<T, L>& b, Vec<T, L>& c, Vec<T, L>& d) {
    spread4<T, L>(p, a, b, c, d, std::make_integer_sequence<int, L>{});
}
template <int L, class T>
ALWAYS_INLINE Vec<T, 4> fold(Vec<T, L> v) {
    if constexpr (L == 4) {
        return v;
    } else {
        Vec<T, L / 2> low = pick(v, v, std::make_integer_sequence<int, L / 2>{});
        Vec<T, L / 2> high = high_half<L>(v, std::make_integer_sequence<int, L / 2>{});
        return fold<L / 2, T>(low + high);
    }
}
// Lanes 4q + First, L + 4q + First, 4q + First + Step, L + 4q + First + Step of two vectors, for each quarter q.
template <int First, int Step, class V, int... I>
ALWAYS_INLINE V weave(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 * L + I % 4 / 2 * Step + First)...);
}
template <int First, class V, int... I>
ALWAYS_INLINE V weave_pairs(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 + I % 4 / 2 * L + First)...);
}
// The sums of four vectors, in order.  Shuffles stay within four lanes until the four sums lie side by side.
template <class T, int L>
ALWAYS_INLINE Vec<T, 4> sum_each(Vec<T, L> a, Vec<T, L> b, Vec<T, L> c, Vec<T, L> d) {
    constexpr std::make_integer_sequence<int, L> all{};
    const Vec<T, L> ab = weave<0, 1>(a, b, all) + weave<2, 1>(a, b, all);
    const Vec<T, L> cd = weave<0, 1>(c, d, all) + weave<2, 1>(c, d, all);
    return fold<L, T>(weave_pairs<0>(ab, cd, all) + weave_pairs<2>(ab, cd, all));
}
#else
template <class T, int L>
struct Vec {
    T lane[L];
    friend Vec operator+(Vec a, Vec b) { for (int i = 0; i < L; ++i) a.lane[i] += b.lane[i]; return a; }
    friend Vec operator*(Vec a, Vec b) { for (int i = 0; i < L; ++i) a.lane[i] *= b.lane[i]; return a; }
    friend Vec operator*(T s, Vec a) { for (int i = 0; i < L; ++i) a.lane[i] *= s; return a; }
    Vec& operator+=(Vec b) { return *this = *this + b; }
};
template <class T, int L>
ALWAYS_INLINE void spread4(const T* p, Vec<T, L>& a, Vec<T, L>& b, Vec<T, L>& c, Vec<T, L>& d) {
    for (int i = 0; i < L; ++i) a.lane[i] = p[0], b.lane[i] = p[1], c.lane[i] = p[2], d.lane[i] = p[3];
}
template <class T, int L>
ALWAYS_INLINE Vec<T, 4> sum_each(Vec<T, L> a, Vec<T, L> b, Vec<T, L> c, Vec<T, L> d) {
    Vec<T, 4> sums{};
    for (int i = 0; i < L; ++i) {
        sums.lane[0] += a.lane[i]; sums.lane[1] += b.lane[i]; sums.lane[2] += c.lane[i]; sums.lane[3] += d.lane[i];
    }
    return sums;
}
#endif

template <int L>
ALWAYS_INLINE Vec<float, L> splat(float value) {
    float lanes[L];
    for (int i = 0; i < L; ++i) lanes[i] = value;
    Vec<float, L> v;
    std::memcpy(&v, lanes, sizeof(v));
    return v;
}

template <class To, class From>
ALWAYS_INLINE To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits needs equal sizes");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

// Ask for the memory of `n` values that will be read, or written, a few hundred cycles from now.  A run shorter than a
// line is asked for at its end only: asking for both ends costs more than it gains.
template <bool kWrite, class T>
ALWAYS_INLINE void fetch(const T* p, int64_t n) {
#if defined(__GNUC__) || defined(__clang__)
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i + kLine < n; i += kLine) __builtin_prefetch(p + i, kWrite);
    __builtin_prefetch(p + n - 1, kWrite);
#endif
}

// Storage types: how a value lies in memory (Store) and what it is computed in (Acc).
struct Float32 { using Store = float; using Acc = float; };
struct Float64 { using Store = double; using Acc = double; };
struct Float16 { using Store = uint16_t; using Acc = float; };
struct BFloat16 { using Store = uint16_t; using Acc = float; };
template <class Acc>
using AccType = std::conditional_t<sizeof(Acc) == 4, Float32, Float64>;
template <class Type>
using AccOf = AccType<typename Type::Acc>;

ALWAYS_INLINE float decode(float v, Float32) { return v; }
ALWAYS_INLINE double decode(double v, Float64) { return v; }
ALWAYS_INLINE float decode(uint16_t v, BFloat16) { return bits<float>(uint32_t(v) << 16); }
ALWAYS_INLINE float decode(uint16_t v, Float16) {
    const uint32_t magnitude = uint32_t(v & 0x7fffu) << 13;
    // 2^112 moves the exponent from half to single and makes half subnormals normal.
    const uint32_t finite = bits<uint32_t>(bits<float>(magnitude) * 5.192296858534828e33f);
    const uint32_t special = magnitude | 0x7f800000u;
    return bits<float>((magnitude >= 0x0f800000u ? special : finite) | uint32_t(v & 0x8000u) << 16);
}

ALWAYS_INLINE float encode(float v, Float32) { return v; }
ALWAYS_INLINE double encode(double v, Float64) { return v; }
ALWAYS_INLINE uint16_t encode(float v, BFloat16) {
    const uint32_t u = bits<uint32_t>(v);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return uint16_t((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}
ALWAYS_INLINE uint16_t encode(float v, Float16) {
    const uint32_t u = bits<uint32_t>(v), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {  // a subnormal half: adding 0.5 leaves the rounded bits at the low end
        return uint16_t(sign | (bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000u));
    }
    return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

#if defined(__GNUC__) || defined(__clang__)
// A bfloat16 is the upper half of a float32; written on whole vectors because the scalar form does not vectorize.
template <int L>
ALWAYS_INLINE Vec<float, L> widen_bfloat16(const uint16_t* p) {
#if defined(__AVX512F__)  // GCC widens 16 halves in two steps
    if constexpr (L == 16) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
        return (Vec<float, L>)_mm512_slli_epi32(wide, 16);
    }
#endif
    Vec<uint16_t, L> halves;
    std::memcpy(&halves, p, sizeof(halves));
    return (Vec<float, L>)(__builtin_convertvector(halves, Vec<uint32_t, L>) << 16);
}
template <int L>
ALWAYS_INLINE void narrow_bfloat16(uint16_t* p, Vec<float, L> v) {
#if defined(__AVX512BF16__)  // flushes subnormal numbers to zero
    if constexpr (L == 16) {
        const __m256bh halves = _mm512_cvtneps_pbh((__m512)v);
        std::memcpy(p, &halves, sizeof(halves));
        return;
    } else if constexpr (L == 8) {
        const __m128bh halves = _mm256_cvtneps_pbh((__m256)v);
        std::memcpy(p, &halves, sizeof(halves));
        return;
    }
#endif
    const Vec<uint32_t, L> u = (Vec<uint32_t, L>)v;
    const Vec<uint32_t, L> rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const Vec<uint32_t, L> quiet = (u >> 16) | 0x40u;
    const Vec<uint32_t, L> is_nan = (Vec<uint32_t, L>)((u & 0x7fffffffu) > 0x7f800000u);  // all ones where true
    const Vec<uint16_t, L> halves = __builtin_convertvector((quiet & is_nan) | (rounded & ~is_nan), Vec<uint16_t, L>);
    std::memcpy(p, &halves, sizeof(halves));
}
#define HAS_VECTOR_BFLOAT16 1
#endif

template <class Type, int L>
ALWAYS_INLINE Vec<typename Type::Acc, L> load(const typename Type::Store* p) {
    using Acc = typename Type::Acc;
    Vec<Acc, L> v;
    if constexpr (sizeof(typename Type::Store) == sizeof(Acc)) {
        std::memcpy(&v, p, sizeof(v));
        return v;
    } else {
#if defined(HAS_VECTOR_BFLOAT16)
        if constexpr (std::is_same_v<Type, BFloat16>) return widen_bfloat16<L>(p);
#endif
#if defined(__F16C__) && !defined(_MSC_VER)
        if constexpr (std::is_same_v<Type, Float16> && L == 4) {
            return (Vec<Acc, L>)_mm_cvtph_ps(_mm_loadl_epi64((const __m128i*)p));
        } else if constexpr (std::is_same_v<Type, Float16> && L == 8) {
            return (Vec<Acc, L>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
        }
#if defined(__AVX512F__)
        else if constexpr (std::is_same_v<Type, Float16> && L == 16) {
            return (Vec<Acc, L>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
        }
#endif
        else
#endif
        {
            Acc lanes[L];
            for (int i = 0; i < L; ++i) lanes[i] = decode(p[i], Type{});
            std::memcpy(&v, lanes, sizeof(v));
            return v;
        }
    }
}

template <class Type, int L>
ALWAYS_INLINE void store(typename Type::Store* p, Vec<typename Type::Acc, L> v) {
    using Acc = typename Type::Acc;
    if constexpr (sizeof(typename Type::Store) == sizeof(Acc)) {
        std::memcpy(p, &v, sizeof(v));
    } else {
#if defined(HAS_VECTOR_BFLOAT16)
        if constexpr (std::is_same_v<Type, BFloat16>) {
            narrow_bfloat16<L>(p, v);
            return;
        }
#endif
#if defined(__F16C__) && !defined(_MSC_VER)
        if constexpr (std::is_same_v<Type, Float16> && L == 4) {
            _mm_storel_epi64((__m128i*)p, _mm_cvtps_ph((__m128)v, 0));
            return;
        } else if constexpr (std::is_same_v<Type, Float16> && L == 8) {
            _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, 0));
            return;
        }
#if defined(__AVX512F__)
        else if constexpr (std::is_same_v<Type, Float16> && L == 16) {
            _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, 0));
            return;
        }
#endif
#endif
        Acc lanes[L];
        std::memcpy(lanes, &v, sizeof(v));
        for (int i = 0; i < L; ++i) p[i] = encode(lanes[i], Type{});
    }
}

template <class Acc>
constexpr int kLanes = VECTOR_BYTES / int(sizeof(Acc)) < 4 ? 4 : VECTOR_BYTES / int(sizeof(Acc));

// The first `count` values, zeros behind them.
template <class Type, int L>
ALWAYS_INLINE Vec<typename Type::Acc, L> load_first(const typename Type::Store* p, int64_t count) {
    if (count >= L) return load<Type, L>(p);
#if defined(HAS_AVX512_VECTORS)
    if constexpr (std::is_same_v<Type, Float32> && L == 16)
        return (Vec<float, L>)_mm512_maskz_loadu_ps(__mmask16((1 << count) - 1), p);
#endif
    typename Type::Store lanes[L] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load<Type, L>(lanes);
}
// Write the first `count` lanes, none if it is not positive.
template <class Type, int L>
ALWAYS_INLINE void store_first(typename Type::Store* p, Vec<typename Type::Acc, L> v, int64_t count) {
    if (count >= L) return store<Type, L>(p, v);
#if defined(HAS_AVX512_VECTORS)
    if constexpr (L == 16 && sizeof(typename Type::Acc) == 4) {
        const __mmask16 lanes = __mmask16(count > 0 ? (1 << count) - 1 : 0);
        if constexpr (std::is_same_v<Type, Float32>) return _mm512_mask_storeu_ps(p, lanes, (__m512)v);
        alignas(32) uint16_t halves[L];
        store<Type, L>((typename Type::Store*)halves, v);
        return _mm256_mask_storeu_epi16(p, lanes, _mm256_load_si256((const __m256i*)halves));
    }
#endif
    typename Type::Store lanes[L];
    store<Type, L>(lanes, v);
    for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}
// The first `count` lanes, zeros behind them.
template <int L>
ALWAYS_INLINE Vec<float, L> keep_first(Vec<float, L> v, int64_t count) {
    if (count >= L) return v;
    float lanes[L];
    std::memcpy(lanes, &v, sizeof(v));
    return load_first<Float32, L>(lanes, count);
}

// Call step(i, lanes) for vectors over [0, count): whole ones, then one with the lanes that are left.
template <int L, class Step>
ALWAYS_INLINE void for_runs(int64_t count, const Step& step) {
    int64_t i = 0;
    for (; i + L <= count; i += L) step(i, int64_t(L));
    if (i < count) step(i, count - i);
}

// memcpy without a call, for the short runs of a window: whole vectors, the last of which may overlap the one before.
template <class T, int L>
ALWAYS_INLINE void copy_run(const T* RESTRICT from, T* RESTRICT to, int64_t n) {
    if (n >= L) {
        for (int64_t i = 0; i + L <= n; i += L) std::memcpy(to + i, from + i, L * sizeof(T));
        std::memcpy(to + n - L, from + n - L, L * sizeof(T));
    } else if constexpr (L > 4) {
        copy_run<T, L / 2>(from, to, n);
    } else {
        for (int64_t i = 0; i < n; ++i) to[i] = from[i];
    }
}

template <class Type>
ALWAYS_INLINE void decode_run(const typename Type::Store* RESTRICT from, typename Type::Acc* RESTRICT to, int64_t n) {
    if constexpr (sizeof(typename Type::Store) == sizeof(typename Type::Acc)) {
        copy_run<typename Type::Acc, kLanes<typename Type::Acc>>(from, to, n);
    } else {
        int64_t i = 0;
        constexpr int L = kLanes<typename Type::Acc>;
        for (; i + L <= n; i += L) store<AccOf<Type>, L>(to + i, load<Type, L>(from + i));
        for (; i + 4 <= n; i += 4) store<AccOf<Type>, 4>(to + i, load<Type, 4>(from + i));
        for (; i < n; ++i) to[i] = decode(from[i], Type{});
    }
}

template <class Type>
ALWAYS_INLINE void encode_run(const typename Type::Acc* RESTRICT from, typename Type::Store* RESTRICT to, int64_t n) {
    if constexpr (sizeof(typename Type::Store) == sizeof(typename Type::Acc)) {
        copy_run<typename Type::Acc, kLanes<typename Type::Acc>>(from, to, n);
    } else {
        int64_t i = 0;
        constexpr int L = kLanes<typename Type::Acc>;
        for (; i + L <= n; i += L) store<Type, L>(to + i, load<AccOf<Type>, L>(from + i));
        for (; i + 4 <= n; i += 4) store<Type, 4>(to + i, load<AccOf<Type>, 4>(from + i));
        for (; i < n; ++i) to[i] = encode(from[i], Type{});
    }
}

// Adding and subtracting it rounds to the nearest integer (for absolute values up to a sixth of it).
template <class Acc>
constexpr Acc kRound = sizeof(Acc) == 4 ? Acc(12582912.0) : Acc(6755399441055744.0);

template <class Acc, int L>
struct Lanes;
#if defined(__GNUC__) || defined(__clang__)
// Arithmetic on L points at once; `Lanes<Acc, 1>` below is the same on one.
template <class Acc, int L>
struct Lanes {
    using Index = std::conditional_t<sizeof(Acc) == 4, int32_t, int64_t>;
    using V = Vec<Acc, L>;
    using I = Vec<Index, L>;
    using Sequence = std::make_integer_sequence<int, L>;
    static V all(Acc value) { return value - V{}; }
    static I all_index(Index value) { return value - I{}; }
    static V read(const Acc* p) { V v; std::memcpy(&v, p, sizeof(v)); return v; }
    static I read(const Index* p) { I v; std::memcpy(&v, p, sizeof(v)); return v; }
    static void write(Acc* p, V v) { std::memcpy(p, &v, sizeof(v)); }
    static void write(Index* p, I v) { std::memcpy(p, &v, sizeof(v)); }
    static I truncate(V v) { return __builtin_convertvector(v, I); }
    static V nearest(V v) { return (v + all(kRound<Acc>)) - all(kRound<Acc>); }
    // Largest whole number not above v; without an instruction for it only for what `nearest` rounds.
    static V floor(V v) {
#if defined(__AVX512F__)
        if constexpr (sizeof(V) == 64 && sizeof(Acc) == 4) return (V)_mm512_floor_ps((__m512)v);
        if constexpr (sizeof(V) == 64 && sizeof(Acc) == 8) return (V)_mm512_floor_pd((__m512d)v);
#elif defined(__AVX2__)
        if constexpr (sizeof(V) == 32 && sizeof(Acc) == 4) return (V)_mm256_floor_ps((__m256)v);
        if constexpr (sizeof(V) == 32 && sizeof(Acc) == 8) return (V)_mm256_floor_pd((__m256d)v);
#endif
        const V near = nearest(v);
        return near > v ? near - all(1) : near;
    }
    // The larger of the two; `bound` where v is NaN.
    static V at_least(V v, V bound) {
#if defined(__AVX512F__)
        if constexpr (sizeof(V) == 64 && sizeof(Acc) == 4) return (V)_mm512_max_ps((__m512)v, (__m512)bound);
#endif
        return v > bound ? v : bound;
    }
    static void read_pairs(const Acc* p, V& even, V& odd) { split_pairs(read(p), read(p + L), even, odd, Sequence{}); }
    static void split(V a, V b, V& even, V& odd) { split_pairs(a, b, even, odd, Sequence{}); }
    static void write_pairs(Acc* p, V even, V odd) {
        V a, b;
        join_pairs(even, odd, a, b, Sequence{});
        write(p, a), write(p + L, b);
    }
    static void write_fours(Acc* p, V a, V b, V c, V d) {
        V ac_low, ac_high, bd_low, bd_high;
        join_pairs(a, c, ac_low, ac_high, Sequence{});
        join_pairs(b, d, bd_low, bd_high, Sequence{});
        write_pairs(p, ac_low, bd_low), write_pairs(p + 2 * L, ac_high, bd_high);
    }
};
#endif
template <class Acc>
struct Lanes<Acc, 1> {
    using Index = std::conditional_t<sizeof(Acc) == 4, int32_t, int64_t>;
    using V = Acc;
    using I = Index;
    static V all(Acc value) { return value; }
    static I all_index(Index value) { return value; }
    static V read(const Acc* p) { return *p; }
    static I read(const Index* p) { return *p; }
    static void write(Acc* p, V v) { *p = v; }
    static void write(Index* p, I v) { *p = v; }
    static I truncate(V v) { return Index(v); }
    static V nearest(V v) { return (v + kRound<Acc>) - kRound<Acc>; }
    static V floor(V v) { return nearest(v) > v ? nearest(v) - 1 : nearest(v); }
    static V at_least(V v, V bound) { return v > bound ? v : bound; }
    static void read_pairs(const Acc* p, V& even, V& odd) { even = p[0], odd = p[1]; }
    static void split(V a, V b, V& even, V& odd) { even = a, odd = b; }
    static void write_pairs(Acc* p, V even, V odd) { p[0] = even, p[1] = odd; }
    static void write_fours(Acc* p, V a, V b, V c, V d) { p[0] = a, p[1] = b, p[2] = c, p[3] = d; }
};

// Points handled at once; point arrays are padded to a multiple of it.
#if defined(__GNUC__) || defined(__clang__)
template <class Acc>
constexpr int kPointLanes = kLanes<Acc>;
#else
template <class Acc>
constexpr int kPointLanes = 1;
#endif

}  // namespace
