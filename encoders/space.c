/* space.c - see space.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/space.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"

#define UNIT_TOLERANCE 1e-2 /* room for f16 and int8 vectors, none for a forgotten division */

mr_status mr_space_of(const json_t *description, uint64_t *out, mr_error *err)
{
    if (!json_is_object(description))
        return MR_FAIL(err, INVALID, "the description of a space is %s, expected an object",
                       mr_json_describe(description));
    const json_t *kind = json_object_get(description, "kind");
    if (!json_is_string(kind) || json_string_length(kind) == 0)
        return MR_FAIL(err, INVALID,
                       "the description of a space: 'kind' is %s, expected the encoder's kind",
                       kind ? mr_json_describe(kind) : "missing");

    char *text = json_dumps(description, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (!text)
        return MR_FAIL(err, NO_MEMORY, "no memory for the canonical description of a space");
    *out = mr_hash_xxh3(text, strlen(text));
    free(text);
    return MR_OK;
}

void mr_space_format(uint64_t space, char out[MR_SPACE_TEXT])
{
    snprintf(out, MR_SPACE_TEXT, "%016" PRIx64, space);
}

mr_status mr_space_parse(const char *text, uint64_t *out, mr_error *err)
{
    static const char digits[] = "0123456789abcdef";
    const size_t n = MR_SPACE_TEXT - 1;
    if (strlen(text) != n || strspn(text, digits) != n)
        return MR_FAIL(err, INVALID, "space '%.40s' is not 16 lower-case hex digits", text);
    uint64_t space = 0;
    for (size_t i = 0; i < n; i++)
        space = space << 4 | (uint64_t)(strchr(digits, text[i]) - digits);
    *out = space;
    return MR_OK;
}

mr_status mr_external_check(const char *name, const float *vectors, size_t n, size_t dim,
                            bool normalised, mr_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const float *row = vectors + i * dim;
        double sum = 0;
        for (size_t d = 0; d < dim; d++) {
            if (!isfinite(row[d]))
                return MR_FAIL(err, INVALID, "%s: value %zu of vector %zu is %g, expected a number",
                               name, d, i, (double)row[d]);
            sum += (double)row[d] * (double)row[d];
        }
        if (normalised && fabs(sqrt(sum) - 1) > UNIT_TOLERANCE)
            return MR_FAIL(err, INVALID,
                           "%s: vector %zu has length %.6g, expected 1; divide vectors by their "
                           "length, or describe the space with \"normalised\": false",
                           name, i, sqrt(sum));
    }
    return MR_OK;
}
