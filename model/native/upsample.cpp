// Bilinear upsampling by 2 and addition of skip features in one pass over the result, for the
// decoder. upsample.py calls it.

#include <algorithm>

#include "vectors.h"

extern "C" {

// Tensors are channels-last; bfloat16 if `is_half`, else float32.
struct Upsampling {
  const void* x;     // (batch, height, width, channels)
  const void* skip;  // (batch, 2 height, 2 width, channels); batch 1: shared by all
  void* y;           // (batch, 2 height, 2 width, channels)
  int64_t batch, height, width, channels;
  int64_t skip_batch, is_half, threads;
};

}

namespace {

// Input positions of output position `at`: `near` has weight 3/4, `far` has weight 1/4. At the
// border, they are equal.
void neighbours(int64_t at, int64_t size, int64_t* near, int64_t* far) {
  *near = at / 2;
  *far = std::clamp<int64_t>(at % 2 ? *near + 1 : *near - 1, 0, size - 1);
}

template <typename T>
void run(const Upsampling& e) {
  const int64_t high = 2 * e.height, wide = 2 * e.width, row = e.width * e.channels;
#pragma omp parallel for num_threads(e.threads) schedule(static)
  for (int64_t line = 0; line < e.batch * high; line++) {
    const int64_t image = line / high;
    int64_t near, far;
    neighbours(line % high, e.height, &near, &far);
    const T* x = static_cast<const T*>(e.x) + image * e.height * row;
    const int64_t skipped = e.skip_batch == 1 ? line % high : line;
    const T* skip = static_cast<const T*>(e.skip) + skipped * wide * e.channels;
    T* y = static_cast<T*>(e.y) + line * wide * e.channels;
    for (int64_t column = 0; column < wide; column++) {
      int64_t left, right;
      neighbours(column, e.width, &left, &right);
      const T* corners[4] = {x + near * row + left * e.channels, x + near * row + right * e.channels,
                             x + far * row + left * e.channels, x + far * row + right * e.channels};
      for (int64_t c = 0; c < e.channels; c += kLanes) {
        const Vector upper = 0.75f * load(corners[0] + c) + 0.25f * load(corners[1] + c);
        const Vector lower = 0.75f * load(corners[2] + c) + 0.25f * load(corners[3] + c);
        const Vector sum = 0.75f * upper + 0.25f * lower + load(skip + column * e.channels + c);
        store(y + column * e.channels + c, sum);
      }
    }
  }
}

}  // namespace

extern "C" {

void upsample_run(const Upsampling* e) {
  if (e->is_half)
    run<Half>(*e);
  else
    run<float>(*e);
}

}
