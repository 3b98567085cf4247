/* tensors.c - for the tests of the command line: what is in safetensors files.
 *
 *     tensors compare A B BOUND         every tensor of A is in B, with its shape, within BOUND of
 *                                       the largest value
 *     tensors compare A:X B:Y BOUND     one of each
 *     tensors ids FILE NAME [MASK]      integers with commas between them; -1 where MASK is not 0
 *     tensors copy FILE NAME OUT AS     one tensor into a file of its own, under another name
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/options.h"
#include "engine/safetensors.h"

static int fail(const mr_error *err)
{
    fprintf(stderr, "tensors: %s\n", err->message);
    return 1;
}

static int compare_two(const mr_tensor *a, const mr_tensor *b, double bound)
{
    size_t n = 1;
    double difference = 0, largest = 0;
    if (a->dtype != b->dtype || a->n_dims != b->n_dims ||
        memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) != 0) {
        fprintf(stderr, "tensors: '%s' and '%s' differ in type or shape\n", a->name, b->name);
        return 1;
    }
    for (int i = 0; i < a->n_dims; i++)
        n *= (size_t)a->shape[i];
    if (a->dtype != MR_DTYPE_F32)
        return a->bytes && memcmp(a->data, b->data, a->bytes) != 0;
    for (size_t i = 0; i < n; i++) {
        const double x = (double)mr_load_f32le((const char *)a->data + 4 * i);
        const double y = (double)mr_load_f32le((const char *)b->data + 4 * i);
        difference = fmax(difference, isnan(x - y) ? (double)INFINITY : fabs(x - y));
        largest = fmax(largest, fabs(y));
    }
    const double error = difference == 0 ? 0 : difference / largest;
    if (error <= bound)
        return 0;
    fprintf(stderr, "tensors: '%s' is off by %.3g of the largest, at most %g allowed\n", a->name,
            error, bound);
    return 1;
}

/* "file:name" becomes the file and the name; NULL when there is none. */
static char *split(char *argument)
{
    char *colon = strrchr(argument, ':');
    if (colon)
        *colon++ = '\0';
    return colon;
}

static int compare(char **argv)
{
    mr_error err = {0};
    mr_safetensors *a = NULL, *b = NULL;
    char *one = split(argv[2]), *other = split(argv[3]);
    double bound = 0;
    int failed = 0;
    if (mr_parse_real("BOUND", argv[4], 0, 1, &bound, &err) != MR_OK ||
        mr_safetensors_open(&a, argv[2], &err) != MR_OK ||
        mr_safetensors_open(&b, argv[3], &err) != MR_OK)
        failed = fail(&err);
    size_t n = failed ? 0 : mr_safetensors_count(a), compared = 0;
    for (size_t i = 0; i < n; i++) {
        const mr_tensor *x = mr_safetensors_at(a, i);
        if (one && strcmp(x->name, one) != 0)
            continue;
        const mr_tensor *y = mr_safetensors_find(b, one && other ? other : x->name);
        compared++;
        if (y)
            failed |= compare_two(x, y, bound);
        else
            failed |= fprintf(stderr, "tensors: '%s' is missing in %s\n", x->name, argv[3]) != 0;
    }
    if (compared == 0 && !failed)
        failed |= fprintf(stderr, "tensors: nothing to compare\n") != 0;
    mr_safetensors_close(a);
    mr_safetensors_close(b);
    return failed;
}

static int print_ids(const char *path, const char *name, const char *mask)
{
    mr_error err = {0};
    mr_safetensors *file = NULL;
    if (mr_safetensors_open(&file, path, &err) != MR_OK)
        return fail(&err);
    const mr_tensor *ids = mr_safetensors_find(file, name);
    const mr_tensor *marks = mask ? mr_safetensors_find(file, mask) : NULL;
    const int failed = !ids || ids->dtype != MR_DTYPE_I32 || (mask && !marks);
    for (size_t i = 0; !failed && i < ids->bytes / 4; i++) {
        const bool marked = marks && mr_load_u32le((const char *)marks->data + 4 * i);
        printf("%s%d", i ? "," : "",
               marked ? -1 : (int)(int32_t)mr_load_u32le((const char *)ids->data + 4 * i));
    }
    putchar('\n');
    mr_safetensors_close(file);
    return failed;
}

static int copy(char **argv)
{
    mr_error err = {0};
    mr_safetensors *file = NULL;
    if (mr_safetensors_open(&file, argv[2], &err) != MR_OK)
        return fail(&err);
    const mr_tensor *found = mr_safetensors_find(file, argv[3]);
    mr_tensor tensor = found ? *found : (mr_tensor){.name = NULL};
    tensor.name = argv[5];
    const mr_status status =
        found ? mr_safetensors_write(argv[4], &tensor, 1, NULL, &err)
              : MR_FAIL(&err, NOT_FOUND, "%s has no tensor '%s'", argv[2], argv[3]);
    mr_safetensors_close(file);
    return status == MR_OK ? 0 : fail(&err);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "compare") == 0)
        return compare(argv);
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "ids") == 0)
        return print_ids(argv[2], argv[3], argc == 5 ? argv[4] : NULL);
    if (argc == 6 && strcmp(argv[1], "copy") == 0)
        return copy(argv);
    fprintf(stderr, "tensors: see the top of tests/cli/tensors.c\n");
    return 2;
}
