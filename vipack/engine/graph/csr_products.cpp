// Products of rows of a CSR matrix, or of their transpose, with a dense matrix. REAL and INDEX are defined when this is
// compiled. order: which row of the matrix row i is, or null for all in order.
#include <cstdint>

#ifndef REAL
#define REAL float
#define INDEX int64_t
#endif

namespace {

constexpr int64_t AHEAD = 4;  // entries whose rows of the dense matrix are asked for beforehand, since they lie anywhere

}  // namespace

extern "C" {

// result (rows, width), 0 before.
void vipack_csr_product(int64_t rows, const int64_t *order, const INDEX *starts, const INDEX *columns, const REAL *values,
                        const REAL *__restrict__ dense, int64_t width, REAL *__restrict__ result)
{
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = order ? order[i] : i;
        REAL *target = result + i * width;
        const int64_t end = starts[row + 1];
        for (int64_t n = starts[row]; n < end; ++n) {
            if (n + AHEAD < end) __builtin_prefetch(dense + int64_t(columns[n + AHEAD]) * width);
            const REAL *source = dense + int64_t(columns[n]) * width;
            const REAL value = values[n];
            for (int64_t k = 0; k < width; ++k) target[k] += value * source[k];
        }
    }
}

// result (columns of the matrix, width), 0 before.
void vipack_csr_transposed(int64_t rows, const int64_t *order, const INDEX *starts, const INDEX *columns, const REAL *values,
                           const REAL *__restrict__ dense, int64_t width, REAL *__restrict__ result)
{
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = order ? order[i] : i;
        const REAL *source = dense + i * width;
        const int64_t end = starts[row + 1];
        for (int64_t n = starts[row]; n < end; ++n) {
            if (n + AHEAD < end) __builtin_prefetch(result + int64_t(columns[n + AHEAD]) * width, 1);
            REAL *target = result + int64_t(columns[n]) * width;
            const REAL value = values[n];
            for (int64_t k = 0; k < width; ++k) target[k] += value * source[k];
        }
    }
}

}
