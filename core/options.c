/* options.c - see options.h. Printing the help is in options_help.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "core/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"

#define NAME_MAX_NEAR 64  /* longer names have no near ones: bounds the table below */
#define TABLE_MAX     128 /* options of one command, for suggestions */

/* Optimal string alignment: insert, delete, replace, and swap of neighbours, each at cost 1. */
static size_t edit_distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t rows[3][NAME_MAX_NEAR + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = j;
    for (size_t i = 1; i <= na; i++) {
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[nb];
}

const char *mr_nearest_name(const char *name, const char *const *names, size_t n)
{
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_NEAR)
        return NULL;
    const char *nearest = NULL;
    size_t best = len / 3 + 1; /* one slip in a short name, more in a long one */
    if (best > len - 1)
        best = len - 1; /* a single letter is not near everything */
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(names[i]);
        if (other > NAME_MAX_NEAR)
            continue;
        size_t distance = edit_distance(name, len, names[i], other);
        if (distance < best || (distance == best && best > 0 && !nearest)) {
            best = distance;
            nearest = names[i];
        }
    }
    /* "max" for "max-tokens": far by edits, but what was meant. */
    for (size_t i = 0; i < n && !nearest && len >= 3; i++) {
        if (strncmp(names[i], name, len) == 0)
            nearest = names[i];
    }
    return nearest;
}

mr_status mr_parse_int(const char *what, const char *text, int64_t min, int64_t max, int64_t *out,
                       mr_error *err)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    bool whole = digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits);
    errno = 0;
    long long value = whole ? strtoll(text, NULL, 10) : 0;
    if (whole && errno == 0 && value >= min && value <= max) {
        *out = value;
        return MR_OK;
    }
    return MR_FAIL(err, INVALID, "%s is '%.60s', expected an integer from %" PRId64 " to %" PRId64,
                   what, text, min, max);
}

mr_status mr_parse_real(const char *what, const char *text, double min, double max, double *out,
                        mr_error *err)
{
    /* strtod takes hexadecimal, "nan" and leading space, which nobody means. */
    bool plausible = text[0] != '\0' && strspn(text, "0123456789+-.eE") == strlen(text);
    char *end = NULL;
    double value = plausible ? strtod(text, &end) : 0;
    if (plausible && *end == '\0' && isfinite(value) && value >= min && value <= max) {
        *out = value;
        return MR_OK;
    }
    return MR_FAIL(err, INVALID, "%s is '%.60s', expected a number from %.10g to %.10g", what, text,
                   min, max);
}

/* The bounds of a table are doubles; INT64_MAX as a double is one more than INT64_MAX. */
static int64_t to_int64(double bound)
{
    if (bound >= 0x1p63)
        return INT64_MAX;
    return bound < -0x1p63 ? INT64_MIN : (int64_t)bound;
}

static const mr_option *by_name(const mr_option *table, const char *name, size_t len)
{
    for (const mr_option *o = table; o->kind != MR_OPTION_KIND_END; o++) {
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    }
    return NULL;
}

static const mr_option *by_letter(const mr_option *table, char letter)
{
    for (const mr_option *o = table; o->kind != MR_OPTION_KIND_END; o++) {
        if (o->letter && o->letter == letter)
            return o;
    }
    return NULL;
}

static mr_status unknown_option(const mr_option *table, const char *shown, const char *name,
                                mr_error *err)
{
    const char *names[TABLE_MAX];
    size_t n = 0;
    for (const mr_option *o = table; o->kind != MR_OPTION_KIND_END && n < TABLE_MAX; o++)
        names[n++] = o->name;
    const char *near = mr_nearest_name(name, names, n);
    if (near)
        return MR_FAIL(err, INVALID, "unknown option '%.60s'; did you mean '--%s'?", shown, near);
    return MR_FAIL(err, INVALID, "unknown option '%.60s'; --help lists the options", shown);
}

static mr_status choose(const mr_option *o, const char *what, const char *text, int *out,
                        mr_error *err)
{
    int n = 0;
    for (; o->choices[n]; n++) {
        if (strcmp(o->choices[n], text) == 0) {
            *out = n;
            return MR_OK;
        }
    }
    mr_strbuf list = {0};
    for (int i = 0; i < n; i++)
        mr_strbuf_printf(&list, "%s%s", i == 0 ? "" : i == n - 1 ? " or " : ", ", o->choices[i]);
    mr_status status = MR_FAIL(err, INVALID, "%s is '%.60s', expected %s", what, text,
                               list.data ? list.data : "one of its choices");
    mr_strbuf_release(&list);
    return status;
}

static mr_status store_value(const mr_option *o, const char *text, void *values, mr_error *err)
{
    void *field = (char *)values + o->offset;
    char what[80];
    snprintf(what, sizeof what, "--%s", o->name);
    switch (o->kind) {
    case MR_OPTION_KIND_INT:
        return mr_parse_int(what, text, to_int64(o->min), to_int64(o->max), field, err);
    case MR_OPTION_KIND_REAL: return mr_parse_real(what, text, o->min, o->max, field, err);
    case MR_OPTION_KIND_STRING: *(const char **)field = text; return MR_OK;
    case MR_OPTION_KIND_LIST: {
        mr_option_list *list = field;
        if (list->n == MR_OPTION_LIST_MAX)
            return MR_FAIL(err, INVALID, "%s is given more than %d times", what,
                           MR_OPTION_LIST_MAX);
        list->value[list->n++] = text;
        return MR_OK;
    }
    case MR_OPTION_KIND_CHOICE: return choose(o, what, text, field, err);
    case MR_OPTION_KIND_FLAG:
    case MR_OPTION_KIND_END: break;
    }
    return MR_FAIL(err, INTERNAL, "option %s has no value to store", what);
}

/* Whether an argument is one of our options, and so hardly meant as the value of another. */
static bool is_known_option(const mr_option *table, const char *argument)
{
    if (strncmp(argument, "--", 2) != 0)
        return false;
    const char *name = argument + 2;
    const mr_option *o = by_name(table, name, strcspn(name, "="));
    return o != NULL;
}

typedef struct {
    const mr_option *option;
    const char *attached; /* the value inside the argument itself; NULL: none */
    bool negated;         /* --no-name */
} match;

static mr_status match_option(const mr_option *table, const char *argument, match *out,
                              mr_error *err)
{
    *out = (match){0};
    if (argument[1] != '-') {
        out->option = by_letter(table, argument[1]);
        out->attached = argument[2] != '\0' ? argument + 2 : NULL;
        if (!out->option)
            return unknown_option(table, argument, argument + 1, err);
    } else {
        const char *name = argument + 2;
        size_t len = strcspn(name, "=");
        out->attached = name[len] == '=' ? name + len + 1 : NULL;
        out->option = by_name(table, name, len);
        if (!out->option && len > 3 && strncmp(name, "no-", 3) == 0) {
            out->option = by_name(table, name + 3, len - 3);
            out->negated = true;
            if (out->option && out->option->kind != MR_OPTION_KIND_FLAG)
                return MR_FAIL(err, INVALID, "'--%s' takes a value; there is no '--no-%s'",
                               out->option->name, out->option->name);
        }
        if (!out->option) {
            char bare[NAME_MAX_NEAR + 2];
            snprintf(bare, sizeof bare, "%.*s", (int)(len < sizeof bare ? len : sizeof bare), name);
            return unknown_option(table, argument, bare, err);
        }
    }
    if (out->option->kind == MR_OPTION_KIND_FLAG && out->attached)
        return MR_FAIL(err, INVALID, "'--%s' takes no value, found '%.60s'", out->option->name,
                       out->attached);
    return MR_OK;
}

static bool wants_help(const mr_option *table, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 ||
            (strcmp(argv[i], "-h") == 0 && !by_letter(table, 'h')))
            return true;
    }
    return false;
}

mr_status mr_options_parse(const mr_option *table, int argc, char **argv, void *values,
                           int *n_positional, bool *help_wanted, mr_error *err)
{
    *n_positional = 0;
    *help_wanted = wants_help(table, argc, argv);
    if (*help_wanted)
        return MR_OK;

    int n = 0;
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        char *argument = argv[i];
        if (options_ended || argument[0] != '-' || argument[1] == '\0') {
            argv[1 + n++] = argument; /* never ahead of i */
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            options_ended = true;
            continue;
        }
        match found;
        mr_status status = match_option(table, argument, &found, err);
        if (status != MR_OK)
            return status;
        const mr_option *o = found.option;
        if (o->kind == MR_OPTION_KIND_FLAG) {
            *(bool *)((char *)values + o->offset) = !found.negated;
            continue;
        }
        const char *text = found.attached;
        if (!text) {
            const char *next = i + 1 < argc ? argv[i + 1] : NULL;
            if (!next)
                return MR_FAIL(err, INVALID, "'--%s' needs a value: --%s %s", o->name, o->name,
                               o->value);
            if (is_known_option(table, next))
                return MR_FAIL(err, INVALID,
                               "'--%s' needs a value, found the option '%.60s'; write --%s=%.60s "
                               "if it is meant as the value",
                               o->name, next, o->name, next);
            text = next;
            i++;
        }
        status = store_value(o, text, values, err);
        if (status != MR_OK)
            return status;
    }
    *n_positional = n;
    return MR_OK;
}
