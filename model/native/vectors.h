// Shared by all kernels: SIMD vectors, bfloat16, and a small matrix product.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVectors = 4;
#elif defined(__AVX__)
constexpr int kLanes = 8, kVectors = 2;
#else
constexpr int kLanes = 4, kVectors = 4;
#endif
constexpr int kBlock = kLanes * kVectors;  // output channels of one matrix product
constexpr int kRows = 6;                   // rows of one matrix product

typedef float Vector __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
struct Half {
  uint16_t bits;  // bfloat16
};

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }

inline Vector load(const Half* from) {
  const Halves halves = *reinterpret_cast<const Halves*>(from);
  return (Vector)(__builtin_convertvector(halves, Bits) << 16);
}

inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

inline void store(Half* to, Vector value) {
  const Bits bits = (Bits)value;
  const Bits rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Bits result = value == value ? rounded : bits | 0x400000;  // NaN stays NaN
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(result >> 16, Halves);
}

// (kRows, channels) x (channels, kBlock) -> (kRows, kBlock).
inline void multiply(const float* in, int channels, const float* weight, float* out) {
  Vector sums[kRows][kVectors] = {};
  for (int c = 0; c < channels; c++) {
    Vector w[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++) w[j] = load(weight + (int64_t)c * kBlock + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; i++) {
      const float x = in[(int64_t)i * channels + c];
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) sums[i][j] += x * w[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++) store(out + i * kBlock + j * kLanes, sums[i][j]);
}

#if defined(__AVX512BF16__)
// The same in bfloat16, for pairs of channels: weight is (channels / 2, kBlock, 2).
inline void multiply(const Half* in, int channels, const Half* weight, float* out) {
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++) sums[i][j] = _mm512_setzero_ps();
  for (int c = 0; c < channels; c += 2) {
    __m512bh w[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++)
      w[j] = (__m512bh)_mm512_loadu_si512(weight + (int64_t)c * kBlock + j * 2 * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; i++) {
      int32_t pair;
      std::memcpy(&pair, in + (int64_t)i * channels + c, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], x, w[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; j++) _mm512_storeu_ps(out + i * kBlock + j * kLanes, sums[i][j]);
}
#endif

}  // namespace
