/* options_help.c - the --help text of a command, from the table that also parses. See options.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "core/options.h"
#include "core/strbuf.h"

#define PAGE_COLUMNS 100
#define NAMES_MAX    34 /* a longer left column puts its help on the next line */
#define NAMES_INDENT 2
#define BETWEEN      2
#define HELP_LETTER  'h'

/* Writes text in words, wrapped before PAGE_COLUMNS; continuation lines start at `indent`. The
 * cursor stands at `column` when this begins. A new line in the text is kept. */
static void print_wrapped(FILE *out, const char *text, int column, int indent)
{
    bool line_begins = true;
    while (*text) {
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            line_begins = true;
            text++;
            continue;
        }
        int len = (int)strcspn(text, " \n");
        if (!line_begins && column + 1 + len > PAGE_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            line_begins = true;
        }
        fprintf(out, "%s%.*s", line_begins ? "" : " ", len, text);
        column += len + !line_begins;
        line_begins = false;
        text += len;
        while (*text == ' ')
            text++;
    }
    fputc('\n', out);
}

static void put_names(mr_strbuf *out, const mr_option *o)
{
    if (o->letter)
        mr_strbuf_printf(out, "-%c, --%s", o->letter, o->name);
    else
        mr_strbuf_printf(out, "    --%s", o->name);
    if (o->kind != MR_OPTION_KIND_FLAG)
        mr_strbuf_printf(out, " %s", o->value);
}

static void put_range(mr_strbuf *out, const mr_option *o)
{
    /* Bounds that say "any number" are not worth a reader's time. */
    const double huge = o->kind == MR_OPTION_KIND_INT ? 9e15 : 1e30;
    bool has_min = o->min > -huge, has_max = o->max < huge;
    if (has_min && has_max)
        mr_strbuf_printf(out, "%.10g to %.10g; ", o->min, o->max);
    else if (has_min)
        mr_strbuf_printf(out, "at least %.10g; ", o->min);
    else if (has_max)
        mr_strbuf_printf(out, "at most %.10g; ", o->max);
}

/* Ends with the notes in parentheses: range or choices, and the default. */
static void put_help(mr_strbuf *out, const mr_option *o, const void *defaults)
{
    const void *field = (const char *)defaults + o->offset;
    mr_strbuf_printf(out, "%s (", o->help);
    size_t before = out->len;
    switch (o->kind) {
    case MR_OPTION_KIND_FLAG:
        if (*(const bool *)field)
            mr_strbuf_printf(out, "default: on; --no-%s turns it off", o->name);
        break;
    case MR_OPTION_KIND_INT:
        put_range(out, o);
        mr_strbuf_printf(out, "default: %" PRId64, *(const int64_t *)field);
        break;
    case MR_OPTION_KIND_REAL:
        put_range(out, o);
        mr_strbuf_printf(out, "default: %.10g", *(const double *)field);
        break;
    case MR_OPTION_KIND_STRING: {
        const char *text = *(const char *const *)field;
        if (text && text[0])
            mr_strbuf_printf(out, "default: %s", text);
        break;
    }
    case MR_OPTION_KIND_LIST: mr_strbuf_puts(out, "may be repeated"); break;
    case MR_OPTION_KIND_CHOICE:
        for (int i = 0; o->choices[i]; i++)
            mr_strbuf_printf(out, "%s%s", i ? ", " : "", o->choices[i]);
        mr_strbuf_printf(out, "; default: %s", o->choices[*(const int *)field]);
        break;
    case MR_OPTION_KIND_END: break;
    }
    if (out->failed)
        return;
    if (out->len == before) {
        out->len = before - strlen(" (");
        out->data[out->len] = '\0';
    } else {
        mr_strbuf_puts(out, ")");
    }
}

static void print_row(FILE *out, const char *names, const char *help, int width)
{
    int column = NAMES_INDENT + width + BETWEEN;
    fprintf(out, "%*s%s", NAMES_INDENT, "", names);
    int used = (int)strlen(names);
    if (used > width) {
        fputc('\n', out);
        used = -NAMES_INDENT;
    }
    fprintf(out, "%*s", column - NAMES_INDENT - used, "");
    print_wrapped(out, help, column, column);
}

void mr_options_print_help(FILE *out, const mr_command_help *help, const mr_option *table,
                           const void *defaults)
{
    fprintf(out, "Usage: mixrank %s%s%s\n\n", help->name, help->synopsis[0] ? " " : "",
            help->synopsis);
    print_wrapped(out, help->summary, 0, 0);

    mr_strbuf names = {0}, text = {0};
    int width = (int)strlen("-h, --help");
    bool letter_taken = false;
    for (const mr_option *o = table; o->kind != MR_OPTION_KIND_END; o++) {
        mr_strbuf_clear(&names);
        put_names(&names, o);
        if ((int)names.len > width && names.len <= NAMES_MAX)
            width = (int)names.len;
        letter_taken = letter_taken || o->letter == HELP_LETTER;
    }

    fputs("\nOptions:\n", out);
    for (const mr_option *o = table; o->kind != MR_OPTION_KIND_END; o++) {
        mr_strbuf_clear(&names);
        mr_strbuf_clear(&text);
        put_names(&names, o);
        put_help(&text, o, defaults);
        print_row(out, names.data ? names.data : o->name, text.data ? text.data : o->help, width);
    }
    print_row(out, letter_taken ? "    --help" : "-h, --help", "show this help and exit", width);
    if (help->examples)
        fprintf(out, "\nExamples:\n%s", help->examples);
    mr_strbuf_release(&names);
    mr_strbuf_release(&text);
}
