/* test_plot.c - pictures of journals: XML that is well formed, what they show, and how large they
 * become.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/plot.h"
#include "tests/support.h"

static mr_journal_rows rows_new(size_t n)
{
    mr_journal_rows rows = {calloc(n ? n : 1, sizeof *rows.row), n};
    assert_non_null(rows.row);
    for (size_t i = 0; i < n; i++) {
        const double t = (double)(i + 1) / (double)n;
        rows.row[i] = (mr_journal_row){.step = (int64_t)i * 2 + 1,
                                       .loss = 2 + 6 * exp(-8 * t) + 0.3 * sin((double)i * 1.7),
                                       .smooth = 2 + 6 * exp(-7 * t),
                                       .rate = 1e-3 * (t < 0.1 ? t * 10 : 0.5 + 0.5 * cos(3 * t)),
                                       .norm = 1,
                                       .tokens_per_s = 9000,
                                       .seconds = (double)i,
                                       .valid = i % 50 == 49 ? 2.2 + 6 * exp(-7 * t) : (double)NAN};
    }
    return rows;
}

/* Elements nest and close, attributes are quoted, no number is NaN or infinite. */
static void check_svg(const char *svg)
{
    char stack[8][16];
    size_t depth = 0;
    assert_int_equal(strncmp(svg, "<svg xmlns=", 11), 0);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    assert_null(strstr(svg, "http://www.w3.org/1999/xlink"));
    for (const char *p = svg; *p; p++) {
        if (*p == '&') {
            const bool known = strncmp(p, "&amp;", 5) == 0 || strncmp(p, "&lt;", 4) == 0 ||
                               strncmp(p, "&gt;", 4) == 0 || strncmp(p, "&quot;", 6) == 0;
            if (!known)
                fail_msg("a bare '&' at '%.20s'", p);
        }
        if (*p != '<')
            continue;
        char name[16] = "";
        const bool end = p[1] == '/';
        const char *word = p + 1 + end;
        size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyzP");
        snprintf(name, sizeof name, "%.*s", (int)(n < 15 ? n : 15), word);
        bool quoted = false;
        for (p = word; *p && (quoted || *p != '>'); p++)
            quoted ^= *p == '"';
        if (*p != '>')
            fail_msg("element '%s' does not end", name);
        if (end) {
            if (depth == 0 || strcmp(stack[depth - 1], name) != 0)
                fail_msg("'/%s' ends '%s'", name, depth ? stack[depth - 1] : "nothing");
            depth--;
        } else if (p[-1] != '/') {
            assert_true(depth < 8);
            snprintf(stack[depth++], sizeof stack[0], "%s", name);
        }
    }
    assert_int_equal(depth, 0);
}

static char *render(const mr_journal_rows *rows, const mr_plot_options *opt)
{
    mr_strbuf out = {0};
    mr_error err = {0};
    assert_status(mr_plot_render(rows, opt, &out, &err), MR_OK, &err);
    check_svg(out.data);
    return out.data;
}

static void a_picture_has_axes_lines_and_a_legend(void **state)
{
    (void)state;
    mr_journal_rows rows = rows_new(400);
    char *svg = render(&rows, &(mr_plot_options){.title = "lm <1> & \"more\"\n", .steps = 1000});
    assert_contains(svg, "lm &lt;1&gt; &amp; &quot;more&quot;?</text>");
    assert_contains(svg, ">loss, running mean: 2.005</text>");
    assert_contains(svg, ">valid loss: 2.205</text>");
    assert_contains(svg, ">loss of a step</text>");
    assert_contains(svg, ">learning rate (right)</text>");
    assert_contains(svg, ">step</text>");
    assert_contains(svg, "x=\"796.0\" y=\"370\" text-anchor=\"middle\">1000</text>");
    assert_contains(svg, "x=\"64.0\" y=\"370\" text-anchor=\"middle\">0</text>");
    assert_contains(svg, ">0.0004</text>");
    assert_contains(svg, "<path class=\"line\" d=\"M64.7 ");
    assert_contains(svg, "<path class=\"valid\" d=\"M");
    assert_contains(svg, "<circle class=\"ring\"");
    assert_contains(svg, "prefers-color-scheme:dark");
    free(svg);
    mr_journal_rows_free(&rows);
}

static void what_is_not_there_is_not_drawn(void **state)
{
    (void)state;
    mr_journal_rows rows = rows_new(40);
    char *svg = render(&rows, &(mr_plot_options){0});
    assert_null(strstr(svg, "valid loss"));
    assert_null(strstr(svg, "<circle"));
    assert_contains(svg, ">training</text>");
    free(svg);
    const mr_journal_rows none = {0};
    svg = render(&none, &(mr_plot_options){0});
    assert_contains(svg, "no step has been logged");
    free(svg);
    mr_journal_rows_free(&rows);
}

static void flat_and_extreme_losses_have_an_axis_too(void **state)
{
    (void)state;
    static const double values[] = {0,    1,     -1,   1e-30, 1e30,  -1e99,
                                    1e99, 1e-99, 3e-5, 0.7,   12345, 1e100};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            mr_journal_rows rows = rows_new(2);
            rows.row[0].loss = rows.row[0].smooth = values[i];
            rows.row[1].loss = rows.row[1].smooth = rows.row[1].valid = values[j];
            rows.row[0].rate = rows.row[1].rate = values[j] > 0 ? values[j] : 0;
            for (size_t n = 1; n <= 2; n++) {
                const mr_journal_rows part = {rows.row, n};
                free(render(&part, &(mr_plot_options){0}));
                free(render(&part, &(mr_plot_options){.scale = MR_PLOT_LINEAR}));
                mr_strbuf out = {0};
                mr_error err = {0};
                const bool positive = values[i] > 0 && (n == 1 || values[j] > 0);
                assert_status(
                    mr_plot_render(&part, &(mr_plot_options){.scale = MR_PLOT_LOG}, &out, &err),
                    positive ? MR_OK : MR_INVALID, &err);
                if (positive)
                    check_svg(out.data);
                else
                    assert_contains(err.message, "needs losses above 0");
                mr_strbuf_release(&out);
            }
            mr_journal_rows_free(&rows);
        }
    }
}

static void losses_over_decades_are_drawn_on_a_logarithmic_axis(void **state)
{
    (void)state;
    mr_journal_rows rows = rows_new(300);
    for (size_t i = 0; i < rows.n; i++)
        rows.row[i].loss = rows.row[i].smooth = 10 * exp(-(double)i / 40);
    for (size_t i = 0; i < rows.n; i++)
        rows.row[i].valid = (double)NAN;
    char *automatic = render(&rows, &(mr_plot_options){0});
    char *log = render(&rows, &(mr_plot_options){.scale = MR_PLOT_LOG});
    char *linear = render(&rows, &(mr_plot_options){.scale = MR_PLOT_LINEAR});
    assert_string_equal(automatic, log);
    assert_string_not_equal(linear, log);
    assert_contains(log, "text-anchor=\"end\">0.01</text>");
    assert_contains(log, "text-anchor=\"end\">0.1</text>");
    assert_contains(linear, "text-anchor=\"end\">10</text>");
    assert_null(strstr(linear, "text-anchor=\"end\">0.01</text>"));
    free(automatic);
    free(log);
    free(linear);
    mr_journal_rows_free(&rows);
}

/* One step that went wrong lies outside the axes and leaves them as they were. */
static void a_single_spike_does_not_flatten_the_rest(void **state)
{
    (void)state;
    mr_journal_rows rows = rows_new(400);
    rows.row[200].loss = 1e9;
    char *svg = render(&rows, &(mr_plot_options){.scale = MR_PLOT_LINEAR});
    assert_contains(svg, "text-anchor=\"end\">2</text>");
    assert_null(strstr(svg, "00M</text>"));
    free(svg);
    mr_journal_rows_free(&rows);
}

static void a_long_run_is_a_small_file_with_the_same_bytes(void **state)
{
    (void)state;
    mr_journal_rows rows = rows_new(300000);
    char *svg = render(&rows, &(mr_plot_options){.title = "long"});
    char *again = render(&rows, &(mr_plot_options){.title = "long"});
    assert_string_equal(svg, again);
    if (strlen(svg) > 100000)
        fail_msg("%zu bytes, expected at most 100000", strlen(svg));
    assert_contains(svg, ">500k</text>");
    free(again);
    free(svg);
    mr_journal_rows_free(&rows);
}

static void a_folder_gets_its_picture(void **state)
{
    (void)state;
    static const char journal[] =
        "{\"step\":1,\"loss\":8.3,\"smooth\":8.3,\"rate\":0.001,\"norm\":1,\"tokens_per_s\":1,"
        "\"seconds\":1}\n"
        "{\"step\":2,\"loss\":7.3,\"smooth\":8.2,\"rate\":0.001,\"norm\":1,\"tokens_per_s\":1,"
        "\"seconds\":2}\n{\"step\":";
    char *folder = test_folder_new();
    mr_error err = {0};
    assert_status(mr_plot_journal(folder, &err), MR_NOT_FOUND, &err);
    test_file_write(test_path(folder, MR_JOURNAL_NAME), journal, strlen(journal));
    char slashed[300];
    snprintf(slashed, sizeof slashed, "%s//", folder);
    assert_status(mr_plot_journal(slashed, &err), MR_OK, &err);
    char *svg = test_file_read(test_path(folder, MR_PLOT_NAME), NULL);
    char title[300];
    snprintf(title, sizeof title, ">%s</text>", strrchr(folder, '/') + 1);
    check_svg(svg);
    assert_contains(svg, title);
    free(svg);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_has_axes_lines_and_a_legend),
        cmocka_unit_test(what_is_not_there_is_not_drawn),
        cmocka_unit_test(flat_and_extreme_losses_have_an_axis_too),
        cmocka_unit_test(losses_over_decades_are_drawn_on_a_logarithmic_axis),
        cmocka_unit_test(a_single_spike_does_not_flatten_the_rest),
        cmocka_unit_test(a_long_run_is_a_small_file_with_the_same_bytes),
        cmocka_unit_test(a_folder_gets_its_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
