/* test_options.c - command lines, their error messages, and the help text.
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

#include "core/options.h"
#include "tests/support.h"

typedef struct {
    const char *bundle;
    int64_t top;
    int64_t any;
    double weight;
    bool json;
    bool cache;
    mr_option_list items;
    int precision;
} settings;

static const char *const precisions[] = {"f32", "bf16", "int8", NULL};

static const mr_option table[] = {
    MR_OPTION_STRING("bundle", 'b', "DIR", settings, bundle, "the bundle to rank with"),
    MR_OPTION_INT("top", 'k', "K", settings, top, 1, 10000, "print the best K"),
    MR_OPTION_INT("any", 0, "N", settings, any, -0x1p63, 0x1p63, "any whole number"),
    MR_OPTION_REAL(
        "weight", 'w', "W", settings, weight, -1, 2.5,
        "how much the caller's own score counts beside the margin of the model, which is "
        "what a blend of both needs"),
    MR_OPTION_FLAG("json", 0, settings, json, "print JSON on standard output"),
    MR_OPTION_FLAG("cache", 'c', settings, cache, "keep prefixes"),
    MR_OPTION_LIST("item", 'i', "ID", settings, items, "rank this item"),
    MR_OPTION_CHOICE("precision", 'p', "KIND", settings, precision, precisions, "of the weights"),
    MR_OPTION_END,
};

static const settings defaults = {.bundle = "./bundle", .top = 10, .weight = 0.5, .cache = true};

#define MAX_ARGS 48
typedef struct {
    char storage[MAX_ARGS][40];
    char *argv[MAX_ARGS + 1];
    int argc;
    settings got;
    int n_positional;
    bool help;
    mr_error err;
} command;

/* Arguments are separated by '|'. */
static mr_status run(command *c, const char *line)
{
    *c = (command){.got = defaults, .argc = 1, .n_positional = -1};
    snprintf(c->storage[0], sizeof c->storage[0], "rank");
    c->argv[0] = c->storage[0];
    while (line) {
        const char *bar = strchr(line, '|');
        int len = bar ? (int)(bar - line) : (int)strlen(line);
        assert_true(c->argc < MAX_ARGS && len < 40);
        snprintf(c->storage[c->argc], 40, "%.*s", len, line);
        c->argv[c->argc] = c->storage[c->argc];
        c->argc++;
        line = bar ? bar + 1 : NULL;
    }
    return mr_options_parse(table, c->argc, c->argv, &c->got, &c->n_positional, &c->help, &c->err);
}

static void every_form_of_an_option_is_understood(void **state)
{
    (void)state;
    command c;
    assert_status(
        run(&c, "--bundle|b1|--top=5|-w|-0.5|--json|--no-cache|-i|a|--item=b|-ic|-p|bf16"), MR_OK,
        &c.err);
    assert_string_equal(c.got.bundle, "b1");
    assert_int_equal(c.got.top, 5);
    assert_true(c.got.weight == -0.5);
    assert_true(c.got.json);
    assert_false(c.got.cache);
    assert_int_equal(c.got.items.n, 3);
    assert_string_equal(c.got.items.value[0], "a");
    assert_string_equal(c.got.items.value[1], "b");
    assert_string_equal(c.got.items.value[2], "c");
    assert_int_equal(c.got.precision, 1);
    assert_int_equal(c.n_positional, 0);
    assert_false(c.help);
}

static void what_is_not_given_keeps_its_default_and_the_last_one_wins(void **state)
{
    (void)state;
    command c;
    assert_status(run(&c, "-k3|--top|7|-c|--no-json"), MR_OK, &c.err);
    assert_int_equal(c.got.top, 7);
    assert_string_equal(c.got.bundle, "./bundle");
    assert_true(c.got.weight == 0.5);
    assert_true(c.got.cache);
    assert_false(c.got.json);
    assert_int_equal(c.got.precision, 0);
}

static void positional_arguments_come_to_the_front_in_order(void **state)
{
    (void)state;
    command c;
    assert_status(run(&c, "one|--top|5|-|two|--json|--|--top|-x"), MR_OK, &c.err);
    assert_int_equal(c.n_positional, 5);
    static const char *const want[] = {"rank", "one", "-", "two", "--top", "-x"};
    for (int i = 0; i < 6; i++)
        assert_string_equal(c.argv[i], want[i]);
    assert_int_equal(c.got.top, 5);
}

static void empty_values_and_values_that_look_like_options_can_be_given(void **state)
{
    (void)state;
    command c;
    assert_status(run(&c, "--bundle="), MR_OK, &c.err);
    assert_string_equal(c.got.bundle, "");
    assert_status(run(&c, "--bundle=--json"), MR_OK, &c.err);
    assert_string_equal(c.got.bundle, "--json");
    assert_status(run(&c, "--bundle|--unheard"), MR_OK, &c.err);
    assert_string_equal(c.got.bundle, "--unheard");
    assert_status(run(&c, "--bundle|-"), MR_OK, &c.err);
    assert_string_equal(c.got.bundle, "-");
    assert_status(run(&c, "--any|-9223372036854775808"), MR_OK, &c.err);
    assert_true(c.got.any == INT64_MIN);
}

static void help_is_wanted_before_anything_is_checked(void **state)
{
    (void)state;
    command c;
    assert_status(run(&c, "--bogus|--top|x|--help"), MR_OK, &c.err);
    assert_true(c.help);
    assert_status(run(&c, "-h"), MR_OK, &c.err);
    assert_true(c.help);
    assert_status(run(&c, "--|--help"), MR_OK, &c.err);
    assert_false(c.help);
    assert_int_equal(c.n_positional, 1);
}

static void wrong_use_is_refused_with_what_would_be_right(void **state)
{
    (void)state;
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"--bundel|x", "unknown option '--bundel'; did you mean '--bundle'?"},
        {"--bundel=x", "unknown option '--bundel=x'; did you mean '--bundle'?"},
        {"--zzzzzz", "unknown option '--zzzzzz'; --help lists the options"},
        {"-x", "unknown option '-x'; --help lists the options"},
        {"--prec|f32", "unknown option '--prec'; did you mean '--precision'?"},
        {"--top|ten", "--top is 'ten', expected an integer from 1 to 10000"},
        {"--top|5x", "--top is '5x', expected an integer"},
        {"--top|", "--top is '', expected an integer"},
        {"--top| 5", "--top is ' 5', expected an integer"},
        {"--top|0x5", "--top is '0x5', expected an integer"},
        {"--top|1.0", "--top is '1.0', expected an integer"},
        {"--top|+", "--top is '+', expected an integer"},
        {"--top|0", "--top is '0', expected an integer from 1 to 10000"},
        {"--top|10001", "--top is '10001', expected an integer from 1 to 10000"},
        {"--any|9223372036854775808", "--any is '9223372036854775808', expected an integer from "
                                      "-9223372036854775808 to 9223372036854775807"},
        {"--weight|nan", "--weight is 'nan', expected a number from -1 to 2.5"},
        {"--weight|inf", "--weight is 'inf', expected a number"},
        {"--weight|0x1", "--weight is '0x1', expected a number"},
        {"--weight|1e", "--weight is '1e', expected a number"},
        {"--weight|2.6", "--weight is '2.6', expected a number from -1 to 2.5"},
        {"--weight|1e999", "--weight is '1e999', expected a number"},
        {"--precision|fp32", "--precision is 'fp32', expected f32, bf16 or int8"},
        {"--top", "'--top' needs a value: --top K"},
        {"-b", "'--bundle' needs a value: --bundle DIR"},
        {"--bundle|--json", "'--bundle' needs a value, found the option '--json'; write "
                            "--bundle=--json if it is meant as the value"},
        {"--json=yes", "'--json' takes no value, found 'yes'"},
        {"-cx", "'--cache' takes no value, found 'x'"},
        {"--no-top", "'--top' takes a value; there is no '--no-top'"},
        {"--no-", "unknown option '--no-'"},
        {"--=x", "unknown option '--=x'; --help lists"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        command c;
        assert_status(run(&c, cases[i].line), MR_INVALID, &c.err);
        assert_contains(c.err.message, cases[i].message);
        assert_int_equal(c.n_positional, 0);
    }
}

static void a_list_has_room_for_32(void **state)
{
    (void)state;
    char line[400] = "-i0";
    for (int i = 1; i < MR_OPTION_LIST_MAX; i++)
        snprintf(line + strlen(line), sizeof line - strlen(line), "|-i%d", i);
    command c;
    assert_status(run(&c, line), MR_OK, &c.err);
    assert_int_equal(c.got.items.n, MR_OPTION_LIST_MAX);
    assert_string_equal(c.got.items.value[31], "31");
    snprintf(line + strlen(line), sizeof line - strlen(line), "|--item|x");
    assert_status(run(&c, line), MR_INVALID, &c.err);
    assert_string_equal(c.err.message, "--item is given more than 32 times");
}

static char *help_text(const mr_command_help *help)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    mr_options_print_help(stream, help, table, &defaults);
    fclose(stream);
    return text;
}

static void help_shows_ranges_defaults_and_examples(void **state)
{
    (void)state;
    static const mr_command_help help = {
        .name = "rank",
        .synopsis = "[options] [ID ...]",
        .summary =
            "Ranks items for a query and a user. Without a user the prompt has no user part, "
            "and the order is that of an anonymous visitor.",
        .examples = "  mixrank rank --bundle b --query 'text editor'\n",
    };
    static const char want[] =
        "Usage: mixrank rank [options] [ID ...]\n"
        "\n"
        "Ranks items for a query and a user. Without a user the prompt has no user part, and the "
        "order is\n"
        "that of an anonymous visitor.\n"
        "\n"
        "Options:\n"
        "  -b, --bundle DIR      the bundle to rank with (default: ./bundle)\n"
        "  -k, --top K           print the best K (1 to 10000; default: 10)\n"
        "      --any N           any whole number (default: 0)\n"
        "  -w, --weight W        how much the caller's own score counts beside the margin of the "
        "model, which\n"
        "                        is what a blend of both needs (-1 to 2.5; default: 0.5)\n"
        "      --json            print JSON on standard output\n"
        "  -c, --cache           keep prefixes (default: on; --no-cache turns it off)\n"
        "  -i, --item ID         rank this item (may be repeated)\n"
        "  -p, --precision KIND  of the weights (f32, bf16, int8; default: f32)\n"
        "  -h, --help            show this help and exit\n"
        "\n"
        "Examples:\n"
        "  mixrank rank --bundle b --query 'text editor'\n";
    char *text = help_text(&help);
    assert_string_equal(text, want);
    for (const char *line = text; line;) {
        const char *end = strchr(line, '\n');
        assert_true(!end || end - line <= 100);
        line = end ? end + 1 : NULL;
    }
    free(text);
}

static void help_without_examples_has_no_such_section(void **state)
{
    (void)state;
    static const mr_command_help help = {"version", "", "Prints the version.", NULL};
    char *text = help_text(&help);
    assert_null(strstr(text, "Examples"));
    assert_contains(text, "Usage: mixrank version\n");
    free(text);
}

static void a_real_number_is_finite_even_where_no_bound_says_so(void **state)
{
    (void)state;
    const double infinity = (double)INFINITY;
    mr_error err = {0};
    double out = 7;
    assert_status(mr_parse_real("x", "1e999", -infinity, infinity, &out, &err), MR_INVALID, &err);
    assert_status(mr_parse_real("x", "-1e999", -infinity, infinity, &out, &err), MR_INVALID, &err);
    assert_true(out == 7);
    assert_status(mr_parse_real("x", "-1.5e3", -infinity, infinity, &out, &err), MR_OK, &err);
    assert_true(out == -1500);
}

static void the_nearest_name_is_near(void **state)
{
    (void)state;
    static const char *const names[] = {"bundle", "query", "top", "max-tokens", "json", "user"};
    static const struct {
        const char *name, *want;
    } cases[] = {
        {"bundel", "bundle"},
        {"qurey", "query"},
        {"tpo", "top"},
        {"jsn", "json"},
        {"users", "user"},
        {"max", "max-tokens"},
        {"maxtokens", "max-tokens"},
        {"x", NULL},
        {"", NULL},
        {"completely", NULL},
        {"zzz", NULL},
        {"te", NULL},
        {"query", "query"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = mr_nearest_name(cases[i].name, names, sizeof names / sizeof *names);
        if ((got == NULL) != (cases[i].want == NULL) || (got && strcmp(got, cases[i].want) != 0))
            fail_msg("'%s' gave '%s', expected '%s'", cases[i].name, got ? got : "nothing",
                     cases[i].want ? cases[i].want : "nothing");
    }
    char longer[200];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    const char *const long_names[] = {longer, "b"};
    assert_null(mr_nearest_name(longer, long_names, 2));
    assert_null(mr_nearest_name("bundle", long_names, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_an_option_is_understood),
        cmocka_unit_test(what_is_not_given_keeps_its_default_and_the_last_one_wins),
        cmocka_unit_test(positional_arguments_come_to_the_front_in_order),
        cmocka_unit_test(empty_values_and_values_that_look_like_options_can_be_given),
        cmocka_unit_test(help_is_wanted_before_anything_is_checked),
        cmocka_unit_test(wrong_use_is_refused_with_what_would_be_right),
        cmocka_unit_test(a_list_has_room_for_32),
        cmocka_unit_test(help_shows_ranges_defaults_and_examples),
        cmocka_unit_test(help_without_examples_has_no_such_section),
        cmocka_unit_test(a_real_number_is_finite_even_where_no_bound_says_so),
        cmocka_unit_test(the_nearest_name_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
