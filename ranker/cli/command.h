/* command.h - what the subcommands share: the table, exit codes, one voice for failures.
 *
 * Results go to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 used
 * wrongly.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_COMMAND_H
#define MR_RANKER_CLI_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#include "core/error.h"
#include "core/json.h"
#include "core/options.h"

enum { MR_EXIT_OK = 0, MR_EXIT_FAILED = 1, MR_EXIT_USAGE = 2 };

/* argv[0] is the command's name. */
typedef int (*mr_command_run)(int argc, char **argv);

typedef struct {
    const char *name;
    mr_command_run run;
    const char *summary;
} mr_command;

int mr_cmd_bundle(int argc, char **argv);
int mr_cmd_caption(int argc, char **argv);
int mr_cmd_check(int argc, char **argv);
int mr_cmd_encode(int argc, char **argv);
int mr_cmd_evaluate(int argc, char **argv);
int mr_cmd_forward(int argc, char **argv);
int mr_cmd_rank(int argc, char **argv);
int mr_cmd_refresh(int argc, char **argv);
int mr_cmd_store(int argc, char **argv);
int mr_cmd_tokenize(int argc, char **argv);
int mr_cmd_train(int argc, char **argv);
int mr_cmd_version(int argc, char **argv);

/* Parses options into *values. Returns true when the command should go on; otherwise *exit_code is
 * what to exit with (help was printed, or a usage error). Positional arguments end up in argv[1..].
 */
bool mr_command_options(const mr_command_help *help, const mr_option *table, int argc, char **argv,
                        void *values, int *n_positional, int *exit_code);

/* Dispatches argv[1] in a table that ends with a NULL name: for `mixrank` and `mixrank bundle`. */
int mr_command_dispatch(const char *program, const char *intro, const mr_command *table, int argc,
                        char **argv);

/* "mixrank rank: message" on standard error; returns MR_EXIT_FAILED. */
int mr_command_fail(const char *command, const mr_error *err);
/* The same for a mistake in the call, with a pointer to --help; returns MR_EXIT_USAGE. */
int mr_command_misuse(const char *command, const char *fmt, ...) MR_PRINTF(2, 3);

/* The command reads lines of standard input with getline, which ends at a failure as it does at the
 * end: IO when it was a failure. */
mr_status mr_command_check_stdin(mr_error *err);
/* How many of the n arguments are "-", standard input, which can be read once; NULL is none. */
int mr_command_count_stdin(const char *const *paths, size_t n);

/* Most that is read of a picture's file; image.h has a smaller bound, and words for it. */
#define MR_COMMAND_MAX_IMAGE ((size_t)64 << 20)

/* One compact line on standard output; takes ownership of value. */
void mr_command_print_json(json_t *value);

/* Text of a catalogue or a caller on a terminal: controls and broken bytes are shown as '?'. */
void mr_command_print_text(FILE *out, mr_str text);
/* The same for JSON, where broken bytes become U+FFFD and controls are escaped; never NULL but for
 * want of memory. */
json_t *mr_command_json_text(mr_str text);

/* The notice that untrained weights carry, on standard error. on_stdout: the command's result says
 * it as well; then a terminal is not told twice. */
void mr_command_warn_untrained(const char *command, bool on_stdout);

#endif
