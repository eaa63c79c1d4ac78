// Passes over ragged rows of counts. TOPICS, REAL and INDEX are defined when this is compiled: a number of topics that the
// compiler knows halves the time.
#include <cmath>
#include <cstdint>
#include <limits>

#ifndef TOPICS
#define TOPICS 20
#define REAL float
#define INDEX int32_t
#endif

namespace {

constexpr int64_t K = TOPICS;
constexpr int64_t WIDTH = (K + 7) / 8 * 8;  // K filled up by zeros: whole vectors
constexpr REAL DOCUMENT_RELAXATION = REAL(0.6);  // as in passes.py

// log gamma and digamma of x > 0, by their series at x + 6; relative error below 1e-11.
inline void gamma_functions(double x, double &log_gamma, double &digamma)
{
    const double a = x * (x + 5), b = a + 4, c = a + 6;  // (x+1)(x+4), (x+2)(x+3)
    const double product = a * b * c;
    const double z = x + 6, inverse = 1 / z, square = inverse * inverse, log_z = std::log(z);
    const double twice = 2 * x + 5;
    digamma = log_z - inverse * 0.5 - twice * (b * c + a * c + a * b) / product -
              square * (1.0 / 12 -
                        square * (1.0 / 120 - square * (1.0 / 252 - square * (1.0 / 240 - square * (1.0 / 132 - square * (691.0 / 32760))))));
    log_gamma = (z - 0.5) * log_z - z + 0.91893853320467274178 +
                inverse * (1.0 / 12 -
                           square * (1.0 / 360 - square * (1.0 / 1260 - square * (1.0 / 1680 - square * (1.0 / 1188 - square * (691.0 / 360360)))))) -
                std::log(product);
}

// What is to be added to log(x + 6) for digamma(x), by the series of gamma_functions.
inline REAL digamma_correction(REAL x)
{
    const REAL a = x * (x + 5), b = a + 4, c = a + 6, inverse = 1 / (x + 6), square = inverse * inverse;
    const REAL tail = square * (REAL(1.0 / 12) - square * (REAL(1.0 / 120) - square * (REAL(1.0 / 252) - square * (REAL(1.0 / 240) -
                                                                        square * (REAL(1.0 / 132) - square * REAL(691.0 / 32760))))));
    return -(inverse / 2 + (2 * x + 5) * (1 / a + 1 / b + 1 / c) + tail);
}

}  // namespace

extern "C" {

// For each row i of [first, last): s = theta_i . beta_w at each nonzero (w, count); the sum of count * log s; the sum of
// count / s * beta_w; and, added to word_sums_w, count / s * theta_i.
// workspace: as many numbers as the longest row has.
void vipack_pass(int64_t first, int64_t last, const INDEX *starts, const INDEX *words, const REAL *counts,
                 const REAL *__restrict__ theta, const REAL *__restrict__ beta, double *log_likelihood, REAL *__restrict__ theta_sums,
                 REAL *__restrict__ word_sums, double *workspace)
{
    for (int64_t i = first; i < last; ++i) {
        const int64_t begin = starts[i], length = starts[i + 1] - begin;
        REAL shares[K], sums[K];
        for (int64_t k = 0; k < K; ++k) {
            shares[k] = theta[i * K + k];
            sums[k] = 0;
        }
        for (int64_t n = 0; n < length; ++n) {
            const REAL *word = beta + int64_t(words[begin + n]) * K;
            REAL *word_sum = word_sums + int64_t(words[begin + n]) * K;
            REAL probability = 0;
            for (int64_t k = 0; k < K; ++k) probability += shares[k] * word[k];
            const REAL quotient = counts[begin + n] / probability;
            for (int64_t k = 0; k < K; ++k) sums[k] += quotient * word[k];
            for (int64_t k = 0; k < K; ++k) word_sum[k] += quotient * shares[k];
            workspace[n] = probability;
        }
        double total = 0;
        for (int64_t n = 0; n < length; ++n) total += double(counts[begin + n]) * std::log(workspace[n]);
        log_likelihood[i] = total;
        for (int64_t k = 0; k < K; ++k) theta_sums[i * K + k] = sums[k];
    }
}

// The sum of count * log s alone, of rows of the counts that `order` names, or null for all in order. A count of 0 adds nothing.
void vipack_log_likelihood(int64_t first, int64_t last, const int64_t *order, const INDEX *starts, const INDEX *words,
                           const REAL *counts, const REAL *__restrict__ theta, const REAL *__restrict__ beta, REAL *log_likelihood)
{
    constexpr int64_t AT_ONCE = 64;
    for (int64_t i = first; i < last; ++i) {
        const int64_t row = order ? order[i] : i, end = starts[row + 1];
        const REAL *shares = theta + i * K;
        double total = 0;
        for (int64_t begin = starts[row]; begin < end; begin += AT_ONCE) {
            const int64_t length = end - begin < AT_ONCE ? end - begin : AT_ONCE;
            double probabilities[AT_ONCE];
            for (int64_t n = 0; n < length; ++n) {
                const REAL *word = beta + int64_t(words[begin + n]) * K;
                REAL probability = 0;
                for (int64_t k = 0; k < K; ++k) probability += shares[k] * word[k];
                probabilities[n] = counts[begin + n] == 0 ? REAL(1) : probability;
            }
            for (int64_t n = 0; n < length; ++n) total += double(counts[begin + n]) * std::log(probabilities[n]);
        }
        log_likelihood[i] = REAL(total);
    }
}

// Gradients of the sum of weights_i times row i's log likelihood; that of beta is added to word_sums.
void vipack_gradients(int64_t first, int64_t last, const int64_t *order, const INDEX *starts, const INDEX *words,
                      const REAL *counts, const REAL *__restrict__ theta, const REAL *__restrict__ beta, const REAL *weights,
                      REAL *__restrict__ theta_sums, REAL *__restrict__ word_sums)
{
    for (int64_t i = first; i < last; ++i) {
        const int64_t row = order ? order[i] : i;
        REAL shares[K], sums[K];
        for (int64_t k = 0; k < K; ++k) {
            shares[k] = theta[i * K + k];
            sums[k] = 0;
        }
        for (int64_t n = starts[row]; n < starts[row + 1]; ++n) {
            if (counts[n] == 0) continue;
            const REAL *word = beta + int64_t(words[n]) * K;
            REAL *word_sum = word_sums + int64_t(words[n]) * K;
            REAL probability = 0;
            for (int64_t k = 0; k < K; ++k) probability += shares[k] * word[k];
            const REAL quotient = weights[i] * counts[n] / probability;
            for (int64_t k = 0; k < K; ++k) sums[k] += quotient * word[k];
            for (int64_t k = 0; k < K; ++k) word_sum[k] += quotient * shares[k];
        }
        for (int64_t k = 0; k < K; ++k) theta_sums[i * K + k] = sums[k];
    }
}

// Expectations under Dirichlet distributions, one for each row (columns null) or for each column (columns: digamma of its total).
//
// weights: exp(E log x - shift of the row), the largest of each row being 1. Adds to *divergence the sum over entries of
// (x - prior) * E log x - log gamma(x), and over rows, where these are the distributions, of log gamma of their totals.
void vipack_expectations(int64_t rows, const REAL *__restrict__ x, const double *prior, int64_t prior_stride, const double *columns,
                         REAL *__restrict__ weights, double *__restrict__ shifts, double *divergence)
{
    constexpr int64_t AT_ONCE = 16;
    double sum = 0;
    for (int64_t start = 0; start < rows; start += AT_ONCE) {
        const int64_t count = rows - start < AT_ONCE ? rows - start : AT_ONCE;
        double expected[AT_ONCE * K], log_gamma[AT_ONCE * K], totals[AT_ONCE], total_log_gamma[AT_ONCE], total_digamma[AT_ONCE];
        const REAL *values = x + start * K;
        for (int64_t n = 0; n < count * K; ++n) gamma_functions(values[n], log_gamma[n], expected[n]);
        if (!columns) {
            for (int64_t i = 0; i < count; ++i) {
                totals[i] = 0;
                for (int64_t k = 0; k < K; ++k) totals[i] += values[i * K + k];
            }
            for (int64_t i = 0; i < count; ++i) gamma_functions(totals[i], total_log_gamma[i], total_digamma[i]);
        }
        for (int64_t i = 0; i < count; ++i) {
            double *row = expected + i * K, largest = -1e300;
            const double *prior_row = prior + (start + i) * prior_stride;
            for (int64_t k = 0; k < K; ++k) {
                row[k] -= columns ? columns[k] : total_digamma[i];
                largest = largest > row[k] ? largest : row[k];
                sum += (values[i * K + k] - prior_row[k]) * row[k] - log_gamma[i * K + k];
            }
            for (int64_t k = 0; k < K; ++k) weights[(start + i) * K + k] = std::exp(REAL(row[k] - largest));
            shifts[start + i] = largest;
            if (!columns) sum += total_log_gamma[i];
        }
    }
    *divergence += sum;
}

// updated * (updated / old)^power, in place.
void vipack_relax(int64_t size, const REAL *__restrict__ old, REAL *__restrict__ updated, double power)
{
    const REAL by = REAL(power);
    for (int64_t n = 0; n < size; ++n) updated[n] *= std::exp(by * std::log(updated[n] / old[n]));
}

// Coordinate ascent of documents' Dirichlet distributions q(theta_i) = Dirichlet(gamma_i) while the topics stay as they are.
//
// beta: exp(E log beta) up to factors of words. gamma: where to start, and the result. Ends for a document after most_steps, or
// when gamma changes by less than tolerance in the mean. Up to half of most_steps go further by DOCUMENT_RELAXATION, with the
// total kept; the others are plain, should those not settle. workspace: as many numbers as the longest row has, times WIDTH.
void vipack_fold_in(int64_t first, int64_t last, const INDEX* starts, const INDEX* words, const REAL* counts,
                    const REAL* __restrict__ beta, const double* prior, REAL* __restrict__ gamma, int64_t most_steps,
                    double tolerance, REAL* __restrict__ workspace) {
    for (int64_t i = first; i < last; ++i) {
        const int64_t begin = starts[i], length = starts[i + 1] - begin;
        REAL* own = gamma + i * K;
        for (int64_t n = 0; n < length; ++n) {
            const REAL* word = beta + int64_t(words[begin + n]) * K;
            for (int64_t k = 0; k < K; ++k) workspace[n * WIDTH + k] = word[k];
            for (int64_t k = K; k < WIDTH; ++k) workspace[n * WIDTH + k] = 0;
        }
        for (int64_t step = 0; step < most_steps; ++step) {
            REAL corrections[K], shares[WIDTH] = {}, sums[WIDTH] = {}, largest = -std::numeric_limits<REAL>::max();
            for (int64_t k = 0; k < K; ++k) corrections[k] = digamma_correction(own[k]);
            for (int64_t k = 0; k < K; ++k) largest = largest > corrections[k] ? largest : corrections[k];
            for (int64_t k = 0; k < K; ++k) shares[k] = (own[k] + 6) * std::exp(corrections[k] - largest);
            for (int64_t n = 0; n < length; ++n) {
                const REAL* word = workspace + n * WIDTH;
                REAL probability = 0;
                for (int64_t k = 0; k < WIDTH; ++k) probability += shares[k] * word[k];
                const REAL quotient = counts[begin + n] / probability;
                for (int64_t k = 0; k < WIDTH; ++k) sums[k] += quotient * word[k];
            }
            REAL updated[K], change = 0;
            for (int64_t k = 0; k < K; ++k) {
                updated[k] = REAL(prior[k]) + shares[k] * sums[k];
                change += std::abs(updated[k] - own[k]);
            }
            const bool done = change < tolerance * K;
            if (done || 2 * step + 1 >= most_steps) {
                for (int64_t k = 0; k < K; ++k) own[k] = updated[k];
                if (done) break;
                continue;
            }
            REAL total = 0, relaxed_total = 0;
            for (int64_t k = 0; k < K; ++k) {
                own[k] = updated[k] * std::exp(DOCUMENT_RELAXATION * std::log(updated[k] / own[k]));
                total += updated[k];
                relaxed_total += own[k];
            }
            for (int64_t k = 0; k < K; ++k) own[k] *= total / relaxed_total;
        }
    }
}

}
