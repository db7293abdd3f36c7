// Fixed-length vectors over compiler vector extensions, with plain arrays where a compiler has none.
// Everything sits in an unnamed namespace: this header is compiled once per instruction set, and no copy may be
// shared between them by the linker.
#pragma once
#include <cstdint>
#include <cstring>
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

#if defined(_MSC_VER) && !defined(__clang__)
#define ALWAYS_INLINE __forceinline
#define RESTRICT __restrict
#else
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define RESTRICT __restrict__
#endif

namespace {

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
// The sums of four vectors, in order.
template <class T, int L>
ALWAYS_INLINE Vec<T, 4> sum_each(Vec<T, L> a, Vec<T, L> b, Vec<T, L> c, Vec<T, L> d) {
    Vec<T, 4> a4 = fold<L, T>(a), b4 = fold<L, T>(b), c4 = fold<L, T>(c), d4 = fold<L, T>(d);
    Vec<T, 4> ab = __builtin_shufflevector(a4, b4, 0, 4, 1, 5) + __builtin_shufflevector(a4, b4, 2, 6, 3, 7);
    Vec<T, 4> cd = __builtin_shufflevector(c4, d4, 0, 4, 1, 5) + __builtin_shufflevector(c4, d4, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
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
ALWAYS_INLINE Vec<T, 4> sum_each(Vec<T, L> a, Vec<T, L> b, Vec<T, L> c, Vec<T, L> d) {
    Vec<T, 4> sums{};
    for (int i = 0; i < L; ++i) {
        sums.lane[0] += a.lane[i]; sums.lane[1] += b.lane[i]; sums.lane[2] += c.lane[i]; sums.lane[3] += d.lane[i];
    }
    return sums;
}
#endif

template <class To, class From>
ALWAYS_INLINE To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits needs equal sizes");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

// Storage types: how a value lies in memory (Store) and what it is computed in (Acc).
struct Float32 { using Store = float; using Acc = float; };
struct Float64 { using Store = double; using Acc = double; };
struct Float16 { using Store = uint16_t; using Acc = float; };
struct BFloat16 { using Store = uint16_t; using Acc = float; };

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

template <class Type, int L>
ALWAYS_INLINE Vec<typename Type::Acc, L> load(const typename Type::Store* p) {
    using Acc = typename Type::Acc;
    Vec<Acc, L> v;
    if constexpr (sizeof(typename Type::Store) == sizeof(Acc)) {
        std::memcpy(&v, p, sizeof(v));
        return v;
    } else {
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
        Acc lanes[L];
        std::memcpy(lanes, &v, sizeof(v));
        for (int i = 0; i < L; ++i) p[i] = encode(lanes[i], Type{});
    }
}

template <class Type>
ALWAYS_INLINE void decode_run(const typename Type::Store* RESTRICT from, typename Type::Acc* RESTRICT to, int64_t n) {
    if constexpr (sizeof(typename Type::Store) == sizeof(typename Type::Acc)) {
        std::memcpy(to, from, size_t(n) * sizeof(*to));
    } else {
        for (int64_t i = 0; i < n; ++i) to[i] = decode(from[i], Type{});
    }
}

template <class Type>
ALWAYS_INLINE void encode_run(const typename Type::Acc* RESTRICT from, typename Type::Store* RESTRICT to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = encode(from[i], Type{});
}

template <class Acc>
constexpr int kLanes = VECTOR_BYTES / int(sizeof(Acc)) < 4 ? 4 : VECTOR_BYTES / int(sizeof(Acc));

}  // namespace
