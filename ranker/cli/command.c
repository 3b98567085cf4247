/* command.c - see command.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/strbuf.h"
#include "core/utf8.h"
#include "ranker/model/bundle.h"

bool mr_command_options(const mr_command_help *help, const mr_option *table, int argc, char **argv,
                        void *values, int *n_positional, int *exit_code)
{
    mr_error err = {0};
    bool help_wanted = false;
    mr_status status =
        mr_options_parse(table, argc, argv, values, n_positional, &help_wanted, &err);
    if (help_wanted) {
        mr_options_print_help(stdout, help, table, values);
        *exit_code = MR_EXIT_OK;
        return false;
    }
    if (status != MR_OK) {
        *exit_code = mr_command_misuse(help->name, "%s", err.message);
        return false;
    }
    return true;
}

static void print_commands(FILE *out, const char *program, const char *intro,
                           const mr_command *table)
{
    fprintf(out, "usage: %s COMMAND [options]\n\n%s\n\ncommands:\n", program, intro);
    for (const mr_command *command = table; command->name; command++)
        fprintf(out, "  %-14s %s\n", command->name, command->summary);
    fprintf(out, "\n%s COMMAND --help explains a command and shows examples.\n", program);
}

int mr_command_dispatch(const char *program, const char *intro, const mr_command *table, int argc,
                        char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_commands(stderr, program, intro, table);
        return MR_EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_commands(stdout, program, intro, table);
        return MR_EXIT_OK;
    }
    const char *names[32];
    size_t n = 0;
    for (const mr_command *command = table; command->name; command++) {
        if (strcmp(name, command->name) == 0)
            return command->run(argc - 1, argv + 1);
        if (n < sizeof names / sizeof *names)
            names[n++] = command->name;
    }
    const char *near = mr_nearest_name(name, names, n);
    fprintf(stderr, "%s: unknown command '%s'%s%s%s; '%s --help' lists them\n", program, name,
            near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "", program);
    return MR_EXIT_USAGE;
}

int mr_command_fail(const char *command, const mr_error *err)
{
    fprintf(stderr, "mixrank %s: ", command);
    mr_command_print_text(stderr, mr_str_of(err->message)); /* it may quote an id or a path */
    fputc('\n', stderr);
    return MR_EXIT_FAILED;
}

int mr_command_misuse(const char *command, const char *fmt, ...)
{
    fprintf(stderr, "mixrank %s: ", command);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n'mixrank %s --help' shows how it is used\n", command);
    return MR_EXIT_USAGE;
}

mr_status mr_command_check_stdin(mr_error *err)
{
    /* Not ferror: a line too long for the memory does not set it. */
    return feof(stdin) ? MR_OK : mr_file_fail(err, errno, "read", "standard input");
}

int mr_command_count_stdin(const char *const *paths, size_t n)
{
    int count = 0;
    for (size_t i = 0; i < n; i++)
        count += paths[i] && strcmp(paths[i], "-") == 0;
    return count;
}

void mr_command_print_json(json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    puts(text ? text : "{\"error\":\"out of memory\"}");
    free(text);
    json_decref(value);
}

void mr_command_print_text(FILE *out, mr_str text)
{
    for (size_t i = 0; i < text.len;) {
        uint32_t code = 0;
        const size_t n = mr_utf8_decode(text.data + i, text.len - i, &code);
        const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
        if (n == 0 || control)
            fputc('?', out);
        else
            fwrite(text.data + i, 1, n, out);
        i += n ? n : 1;
    }
}

json_t *mr_command_json_text(mr_str text)
{
    if (text.len == 0 || mr_utf8_valid_prefix(text.data, text.len) == text.len)
        return json_stringn(text.data ? text.data : "", text.len);
    mr_strbuf clean = {0};
    for (size_t i = 0; i < text.len;) {
        const size_t valid = mr_utf8_valid_prefix(text.data + i, text.len - i);
        mr_strbuf_append(&clean, text.data + i, valid);
        i += valid;
        if (i < text.len) {
            mr_strbuf_puts(&clean, "\xEF\xBF\xBD");
            i++;
        }
    }
    json_t *out = clean.failed ? NULL : json_stringn(clean.data, clean.len);
    mr_strbuf_release(&clean);
    return out;
}

void mr_command_warn_untrained(const char *command, bool on_stdout)
{
    if (!on_stdout || !isatty(STDOUT_FILENO))
        fprintf(stderr, "mixrank %s: %s\n", command, MR_UNTRAINED_NOTICE);
}
