/* options.h - command-line options from one table: parsing, range checks and --help come from it.
 *
 *     static const mr_option table[] = {
 *         MR_OPTION_STRING("bundle", 'b', "DIR", rank_options, bundle, "the bundle to rank with"),
 *         MR_OPTION_INT("top", 'k', "K", rank_options, top, 1, 10000, "print the best K"),
 *         MR_OPTION_FLAG("json", 0, rank_options, json, "print JSON on standard output"),
 *         MR_OPTION_END,
 *     };
 *     static const mr_command_help help = {"rank", "[options]", "Rank items for a query.",
 *                                          "  mixrank rank --bundle b --query 'text editor'\n"};
 *
 * Accepts --name value, --name=value, -k value, and --no-name for flags. "--" ends options. An
 * unknown option is refused with the nearest known one. A number that is not wholly a number, or is
 * out of range, is refused with the range. Defaults are what the struct holds before parsing, and
 * --help prints them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_OPTIONS_H
#define MR_CORE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"

typedef enum {
    MR_OPTION_KIND_END,
    MR_OPTION_KIND_FLAG,   /* bool */
    MR_OPTION_KIND_INT,    /* int64_t */
    MR_OPTION_KIND_REAL,   /* double */
    MR_OPTION_KIND_STRING, /* const char *, borrowed from argv */
    MR_OPTION_KIND_LIST,   /* mr_option_list: may be given several times */
    MR_OPTION_KIND_CHOICE, /* int, index into choices */
} mr_option_kind;

#define MR_OPTION_LIST_MAX 32
typedef struct {
    const char *value[MR_OPTION_LIST_MAX]; /* borrowed from argv */
    size_t n;
} mr_option_list;

typedef struct {
    const char *name;  /* without dashes */
    const char *value; /* what the help calls the value, "DIR" */
    const char *help;
    const char *const *choices; /* NULL-terminated, for CHOICE */
    size_t offset;
    double min, max;
    mr_option_kind kind;
    char letter; /* 0: none */
} mr_option;

#define MR_OPTION_ROW(row_kind, row_name, row_letter, row_value, type, field, row_help, ...)     \
    {                                                                                            \
        .name = row_name, .value = row_value, .help = row_help, .offset = offsetof(type, field), \
        .kind = MR_OPTION_KIND_##row_kind, .letter = row_letter, __VA_ARGS__                     \
    }
#define MR_OPTION_FLAG(name, letter, type, field, help) \
    MR_OPTION_ROW(FLAG, name, letter, NULL, type, field, help, .min = 0)
#define MR_OPTION_INT(name, letter, value, type, field, least, most, help) \
    MR_OPTION_ROW(INT, name, letter, value, type, field, help, .min = least, .max = most)
#define MR_OPTION_REAL(name, letter, value, type, field, least, most, help) \
    MR_OPTION_ROW(REAL, name, letter, value, type, field, help, .min = least, .max = most)
#define MR_OPTION_STRING(name, letter, value, type, field, help) \
    MR_OPTION_ROW(STRING, name, letter, value, type, field, help, .min = 0)
#define MR_OPTION_LIST(name, letter, value, type, field, help) \
    MR_OPTION_ROW(LIST, name, letter, value, type, field, help, .min = 0)
#define MR_OPTION_CHOICE(name, letter, value, type, field, names, help) \
    MR_OPTION_ROW(CHOICE, name, letter, value, type, field, help, .choices = names)
#define MR_OPTION_END              \
    {                              \
        .kind = MR_OPTION_KIND_END \
    }

typedef struct {
    const char *name;     /* "rank", "bundle create" */
    const char *synopsis; /* "[options] [ID ...]" */
    const char *summary;  /* one or more sentences */
    const char *examples; /* lines that run when pasted, or NULL */
} mr_command_help;

/* Parses argv[1..argc) into *values; positional arguments are moved to the front of argv[1..] and
 * counted in *n_positional. *help_wanted is set by --help or -h (nothing else is checked then). */
mr_status mr_options_parse(const mr_option *table, int argc, char **argv, void *values,
                           int *n_positional, bool *help_wanted, mr_error *err);
void mr_options_print_help(FILE *out, const mr_command_help *help, const mr_option *table,
                           const void *defaults);

/* The nearest of the names by edit distance, or NULL when none is near: "did you mean". */
const char *mr_nearest_name(const char *name, const char *const *names, size_t n);

/* Whole-string parses; INVALID otherwise. what names the value in the message. */
mr_status mr_parse_int(const char *what, const char *text, int64_t min, int64_t max, int64_t *out,
                       mr_error *err);
mr_status mr_parse_real(const char *what, const char *text, double min, double max, double *out,
                        mr_error *err);

#endif
