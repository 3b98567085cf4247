/* test_demo_parts.c - the readers, the filter and the measures of the demo catalogue, one by one.
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

#include "core/strbuf.h"
#include "deploy/demo/archive.h"
#include "deploy/demo/bm25.h"
#include "deploy/demo/people.h"
#include "deploy/demo/report.h"
#include "tests/support.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void assert_text(mr_str got, const char *want)
{
    if (!mr_str_equal(got, mr_str_of(want)))
        fail_msg("got '%.*s', expected '%s'", MR_STR_ARG(got), want);
}

/* ---- stanzas --------------------------------------------------------------------------------- */

static void values_keep_their_continuation_lines(void **state)
{
    (void)state;
    demo_stanza_reader reader = demo_stanzas_of(
        "Packages",
        mr_str_of("\n\nPackage:  nut \nTag: a::b,\n c::d\nEmpty:\n\n \nPackage: oak\n"));
    demo_stanza stanza;
    mr_error err = {0};
    assert_status(demo_stanza_next(&reader, &stanza, &err), MR_OK, &err);
    assert_int_equal(stanza.n, 3);
    assert_int_equal(stanza.line, 3);
    assert_text(demo_trim(demo_stanza_get(&stanza, "package")), "nut");
    assert_text(demo_stanza_get(&stanza, "Tag"), "a::b,\n c::d");
    assert_text(demo_stanza_get(&stanza, "Empty"), "");
    assert_text(demo_stanza_get(&stanza, "Absent"), "");
    assert_status(demo_stanza_next(&reader, &stanza, &err), MR_OK, &err);
    assert_text(demo_stanza_get(&stanza, "Package"), "oak");
    assert_status(demo_stanza_next(&reader, &stanza, &err), MR_OK, &err);
    assert_int_equal(stanza.n, 0);
}

static mr_status read_all_stanzas(mr_str text, bool private_text, mr_error *err)
{
    demo_stanza_reader reader = demo_stanzas_of("Sources", text);
    reader.private_text = private_text;
    demo_stanza stanza;
    mr_status status;
    while ((status = demo_stanza_next(&reader, &stanza, err)) == MR_OK && stanza.n > 0)
        ;
    return status;
}

static void malformed_stanzas_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len; /* 0: up to the terminator */
        mr_status status;
        const char *message;
    } row[] = {
        {"Package: a\n\nPackage: b", 0, MR_CORRUPT, "Sources, line 3: the file ends within a line"},
        {"Package: a\nno colon here\n", 0, MR_CORRUPT, "Sources, line 2: no colon here is not of"},
        {": no name\n", 0, MR_CORRUPT, "line 1: : no name is not of the form 'Field: value'"},
        {" lost\n", 0, MR_CORRUPT, "line 1: a continuation line without a field"},
        {"A: 1\n\n more\n", 0, MR_CORRUPT, "line 3: a continuation line without a field"},
        {"A: 1\nB: 2\na: 3\n", 0, MR_CORRUPT, "line 3: a: 3: the field is there twice"},
        {"A: 1\nB: \0x\n", 11, MR_CORRUPT, "line 2: holds a NUL byte"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        mr_str text = {row[i].text, row[i].len ? row[i].len : strlen(row[i].text)};
        assert_status(read_all_stanzas(text, false, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
    }
}

static void a_stanza_is_bounded_in_fields_and_bytes(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_strbuf text = {0};
    for (int i = 0; i <= DEMO_STANZA_FIELDS; i++)
        mr_strbuf_printf(&text, "Field%d: x\n", i);
    assert_status(read_all_stanzas((mr_str){text.data, text.len}, false, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "more than 128 fields");

    mr_strbuf_clear(&text);
    mr_strbuf_puts(&text, "Files:\n");
    while (text.len <= DEMO_STANZA_BYTES)
        mr_strbuf_puts(&text, " a line of a list that does not end, again and again and again\n");
    assert_status(read_all_stanzas((mr_str){text.data, text.len}, false, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "the stanza at line 1 has more than");
    mr_strbuf_release(&text);
}

static void private_text_is_never_quoted(void **state)
{
    (void)state;
    static const char *const text[] = {"Alice Example <alice@example.org>\n",
                                       "Alice: x\nAlice: y\n"};
    for (size_t i = 0; i < COUNT(text); i++) {
        mr_error err = {0};
        assert_status(read_all_stanzas(mr_str_of(text[i]), true, &err), MR_CORRUPT, &err);
        assert_null(strstr(err.message, "lice"));
        assert_contains(err.message, "the line");
    }
}

/* ---- packages -------------------------------------------------------------------------------- */

static void tag_groups_are_written_out(void **state)
{
    (void)state;
    static const struct {
        const char *field, *want;
    } row[] = {
        {"role::program", "role|program "},
        {"a::b, c::{d, e,f},\n g::h:i", "a|b c|d c|e c|f g|h:i "},
        {"a::{b", "a|b "},
        {"a::{},b::c", "b|c "},
        {"a::{,,x}", "a|x "},
        {"nothing, ::, a::, :::, x::y", "x|y "},
        {"a:b", ""},
        {"", ""},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        /* A copy of exactly this length: reading past the end is an error that ASan sees. */
        size_t len = strlen(row[i].field);
        char *field = malloc(len ? len : 1);
        assert_non_null(field);
        memcpy(field, row[i].field, len);
        demo_tags tags = demo_tags_of((mr_str){field, len});
        mr_str facet, value;
        mr_strbuf got = {0};
        while (demo_tags_next(&tags, &facet, &value))
            mr_strbuf_printf(&got, "%.*s|%.*s ", MR_STR_ARG(facet), MR_STR_ARG(value));
        assert_string_equal(got.data ? got.data : "", row[i].want);
        mr_strbuf_release(&got);
        free(field);
    }
}

static void blank_lines_of_a_description_are_no_words(void **state)
{
    (void)state;
    demo_detail detail = demo_detail_of(mr_str_of(" one  two\n .\n\tthree . four\n ."));
    static const char *const want[] = {"one", "two", "three", ".", "four"};
    mr_str word;
    for (size_t i = 0; i < COUNT(want); i++) {
        assert_true(demo_detail_next(&detail, &word));
        assert_text(word, want[i]);
    }
    assert_false(demo_detail_next(&detail, &word));
}

static void the_filter_keeps_programs_and_says_no_to_the_rest(void **state)
{
    (void)state;
    static const char enough[] =
        " one two three four five six\n seven eight nine ten eleven twelve";
    static const struct {
        const char *name, *section, *tags, *summary, *detail;
        bool application, kept;
    } row[] = {
        {"nut", "utils", "", "cracks nuts", enough, false, true},
        {"nut", "utils", "", "cracks nuts", " one two three\n .\n four", false, false},
        {"nut", "utils", "", "cracks nuts", " one", true, true},
        {"nut", "libs", "", "cracks nuts", enough, false, false},
        {"nut", "python", "role::program", "cracks nuts", " one", false, true},
        {"nut", "python", "role::program, role::shared-lib", "x", enough, false, false},
        {"nut", "python", "role::{program,documentation}", "x", enough, false, false},
        {"nut", "doc", "role::program", "x", enough, false, false},
        {"nut", "utils", "role::app-data", "x", enough, false, false},
        {"nut", "utils", "role::plugin", "x", enough, false, true},
        {"nut", "metapackages", "", "x", enough, true, false},
        {"nut", "utils", "role::metapackage", "x", enough, true, false},
        {"nut", "utils", "", "Transitional package", enough, true, false},
        {"nut", "utils", "", "a META-package for nuts", enough, false, false},
        {"nut-tasks", "misc", "", "x", enough, false, false},
        {"education-desktop-nut", "misc", "", "x", enough, false, false},
        {"nut-dev", "utils", "", "x", enough, false, false},
        {"nut-dev-tools", "utils", "", "x", enough, false, false},
        {"nut-device", "utils", "", "x", enough, false, true},
        {"libnut", "utils", "", "x", enough, false, false},
        {"libnut", "utils", "role::program", "x", enough, false, true},
        {"nut-l10n-de", "utils", "", "x", enough, false, false},
        {"nut-l10n", "utils", "", "x", enough, false, false},
        {"nut-help2", "utils", "", "x", enough, false, true},
        {"nut-helper", "utils", "", "x", enough, false, false},
        {"-help", "utils", "", "x", enough, false, false},
        {"g++-9", "devel", "", "x", enough, false, false},
        {"el", "utils", "", "x", enough, false, true},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        demo_package package = {
            .name = mr_str_of(row[i].name),
            .section = mr_str_of(row[i].section),
            .tags = mr_str_of(row[i].tags),
            .summary = mr_str_of(row[i].summary),
            .detail = mr_str_of(row[i].detail),
            .is_application = row[i].application,
        };
        if (demo_is_program(&package) != row[i].kept)
            fail_msg("row %zu: %s in %s with '%s' is %s", i, row[i].name, row[i].section,
                     row[i].tags, row[i].kept ? "dropped, expected kept" : "kept");
    }
}

static void package_names_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {"two words", "-dash", "a/b", "a\tb", "\xc3\xa9"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[128];
        snprintf(text, sizeof text, "Package: %s\n", bad[i]);
        demo_archive archive;
        mr_error err = {0};
        assert_status(demo_archive_read(&archive, mr_str_of(text), mr_str_of(""), &err), MR_CORRUPT,
                      &err);
        assert_contains(err.message, "has the package name");
    }
}

/* ---- DEP-11 ---------------------------------------------------------------------------------- */

#define HEADER "---\nFile: DEP-11\n"

static mr_status read_components(mr_str text, mr_arena *arena, demo_components *out, mr_error *err)
{
    return demo_dep11_read("Components.yml", text, 64, arena, out, err);
}

static void the_english_of_a_translated_value_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *name, *want;
    } row[] = {
        {"{de: Nuss, C: Nut, en: Other}", "Nut"},
        {"{en_GB: Colour, en: Color}", "Color"},
        {"{en_GB: Colour, de: Farbe}", "Colour"},
        {"{de: Nuss}", ""},
        {"Plain", "Plain"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_arena arena = {0};
        demo_components list;
        mr_error err = {0};
        char text[256];
        snprintf(text, sizeof text, HEADER "---\nType: generic\nName: %s\n", row[i].name);
        assert_status(read_components(mr_str_of(text), &arena, &list, &err), MR_OK, &err);
        assert_int_equal(list.n, 1);
        assert_text(list.component[0].name, row[i].want);
        demo_components_done(&list);
        mr_arena_done(&arena);
    }
}

static void malformed_components_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } row[] = {
        {"", "found no document, expected the header"},
        {HEADER "---\nPackage: nut\n", "found a component without Type"},
        {HEADER "---\n- a\n- b\n", "line 4: found a list, expected a component"},
        {HEADER "---\nType: [a]\n", "line 4: found a list, expected a single value"},
        {HEADER "---\nType: a\nCategories: x\n", "line 5: found a single value, expected a list"},
        {HEADER "---\nType: a\nName: &n x\nPackage: *n\n", "line 6: found an alias"},
        {HEADER "---\nType: a\nIcon:\n  cached:\n  - {name: a.png, width: wide}\n",
         "found another text, expected a number of pixels"},
        {HEADER
         "---\nType: a\nKey: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
         "]]]]]]\n",
         "found values nested very deeply"},
        {HEADER "---\nType: 'a\n", "Components.yml, line "},
        {HEADER "---\nType: \xff\n", "Components.yml, line "},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_arena arena = {0};
        demo_components list;
        mr_error err = {0};
        assert_status(read_components(mr_str_of(row[i].text), &arena, &list, &err), MR_CORRUPT,
                      &err);
        assert_contains(err.message, row[i].message);
        mr_arena_done(&arena);
    }
}

static void a_list_of_keywords_is_bounded(void **state)
{
    (void)state;
    mr_arena arena = {0};
    demo_components list;
    mr_error err = {0};
    mr_strbuf text = {0};
    mr_strbuf_puts(&text, HEADER "---\nType: a\nCategories:\n");
    for (int i = 0; i <= DEMO_DEP11_LIST; i++)
        mr_strbuf_puts(&text, "- x\n");
    assert_status(read_components((mr_str){text.data, text.len}, &arena, &list, &err), MR_CORRUPT,
                  &err);
    assert_contains(err.message, "at most 256 entries");
    mr_strbuf_release(&text);
    mr_arena_done(&arena);
}

static void memory_of_the_texts_is_bounded(void **state)
{
    (void)state;
    static const char text[] = HEADER "---\nType: generic\nCategories: [a, b, c]\n";
    int failed = 0;
    for (size_t limit = 1; limit < 200; limit++) {
        mr_arena arena = {.limit = limit};
        demo_components list;
        mr_error err = {0};
        mr_status status = read_components(mr_str_of(text), &arena, &list, &err);
        if (status == MR_OK) {
            assert_int_equal(list.component[0].categories.n, 3);
            demo_components_done(&list);
        } else {
            assert_status(status, MR_NO_MEMORY, &err);
            failed++;
        }
        mr_arena_done(&arena);
    }
    assert_in_range(failed, 1, 198);
}

/* ---- words and search ------------------------------------------------------------------------ */

static void words_are_cut_to_their_stems(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } row[] = {
        {"Text Editors for the C++ programmer", "text editor c++ programm "},
        {"libraries, played; playing players", "library play play play "},
        {"a IS using x 7 42", "42 "},
        {"gtk3based 3D c# is", "gtk3bas c# "},
        {"\xc3\xa9"
         "clair d'or",
         "clair "},
        {"ties dies", "ties dies "},
        {"", ""},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_str rest = mr_str_of(row[i].text);
        char word[MR_WORD_MAX];
        size_t len;
        mr_strbuf got = {0};
        while (mr_words_next(&rest, word, &len))
            mr_strbuf_printf(&got, "%.*s ", (int)len, word);
        assert_string_equal(got.data ? got.data : "", row[i].want);
        mr_strbuf_release(&got);
    }
}

static void search_ranks_and_scores_alike(void **state)
{
    (void)state;
    static const char *const doc[] = {"star chart star", "chart of stocks and shares", "star",
                                      "puzzle", ""};
    demo_bm25 index = {0};
    mr_error err = {0};
    for (uint32_t d = 0; d < COUNT(doc); d++)
        assert_status(demo_bm25_add(&index, d, mr_str_of(doc[d]), &err), MR_OK, &err);
    assert_status(demo_bm25_finish(&index, COUNT(doc), &err), MR_OK, &err);

    demo_terms query = demo_terms_of(&index, mr_str_of("unknown words"));
    assert_int_equal(query.n, 0);
    query = demo_terms_of(&index, mr_str_of("star unknown stars"));
    assert_int_equal(query.n, 1);
    assert_int_equal(query.count[0], 2);

    uint32_t top[3];
    size_t n = 0;
    assert_status(demo_bm25_top(&index, &query, NULL, 3, top, &n, &err), MR_OK, &err);
    assert_int_equal(n, 2);
    const uint32_t all[] = {0, 1, 2, 3, 4};
    double score[5];
    assert_status(demo_bm25_score(&index, &query, all, 5, score, &err), MR_OK, &err);
    assert_true(score[top[0]] > score[top[1]] && score[top[1]] > 0);
    assert_true(score[1] == 0 && score[3] == 0 && score[4] == 0);
    /* By hand: N 5, df 2, idf ln(1 + 3.5/2.5); document 2 has length 1 of 8/5 words. */
    double want = 2 * log(1 + 3.5 / 2.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 1 / (8.0 / 5)));
    if (fabs(score[2] - want) > 1e-12)
        fail_msg("score %.15f, expected %.15f", score[2], want);

    const uint8_t allowed[] = {0, 1, 1, 1, 1};
    assert_status(demo_bm25_top(&index, &query, allowed, 1, top, &n, &err), MR_OK, &err);
    assert_int_equal(n, 1);
    assert_int_equal(top[0], 2);
    demo_bm25_done(&index);
}

static void ndcg_follows_its_definition(void **state)
{
    (void)state;
    static const struct {
        int grade[4];
        double want;
    } row[] = {
        {{3, 1, 0, 0}, 1},
        {{0, 0, 0, 0}, 0},
        {{0, 3, 0, 0}, 0.63092975357145742}, /* 1 / log2(3) */
        {{1, 3, 0, 0}, (1 + 7 / 1.5849625007211562) / (7 + 1 / 1.5849625007211562)},
        {{0, 0, 0, 3}, 0}, /* behind the cut */
    };
    const size_t order[] = {0, 1, 2, 3};
    for (size_t i = 0; i < COUNT(row); i++) {
        double got = demo_ndcg(row[i].grade, order, 4, 2);
        if (fabs(got - row[i].want) > 1e-12)
            fail_msg("row %zu: %.15f, expected %.15f", i, got, row[i].want);
    }
}

/* ---- every cut ------------------------------------------------------------------------------- */

typedef mr_status (*read_function)(mr_str text, mr_error *err);

static mr_status read_packages_of(mr_str text, mr_error *err)
{
    demo_archive archive;
    mr_status status = demo_archive_read(&archive, text, mr_str_of(""), err);
    if (status == MR_OK)
        demo_archive_done(&archive);
    return status;
}

static mr_status read_components_of(mr_str text, mr_error *err)
{
    mr_arena arena = {0};
    demo_components list;
    mr_status status = read_components(text, &arena, &list, err);
    if (status == MR_OK)
        demo_components_done(&list);
    mr_arena_done(&arena);
    return status;
}

/* The readers that need what others read first. */
typedef struct {
    char *packages, *components_text, *vocabulary;
    demo_archive archive;
    demo_components components;
    demo_items items;
    mr_arena arena;
} fixture;

static fixture *whole;

static int open_fixture(void **state)
{
    (void)state;
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    mr_error err = {0};
    f->packages = test_file_read("data/debian-fixture/Packages", NULL);
    f->components_text = test_file_read("data/debian-fixture/Components.yml", NULL);
    f->vocabulary = test_file_read("data/debian-fixture/vocabulary", NULL);
    assert_status(demo_archive_read(&f->archive, mr_str_of(f->packages), mr_str_of(""), &err),
                  MR_OK, &err);
    assert_status(read_components(mr_str_of(f->components_text), &f->arena, &f->components, &err),
                  MR_OK, &err);
    demo_archive_select(&f->archive, &f->components);
    assert_status(demo_items_build(&f->items, &f->archive, &f->components, mr_str_of(f->vocabulary),
                                   NULL, &f->arena, &err),
                  MR_OK, &err);
    whole = f;
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    demo_items_done(&whole->items);
    demo_components_done(&whole->components);
    demo_archive_done(&whole->archive);
    mr_arena_done(&whole->arena);
    free(whole->packages);
    free(whole->components_text);
    free(whole->vocabulary);
    free(whole);
    return 0;
}

static mr_status read_translations_of(mr_str text, mr_error *err)
{
    demo_archive archive;
    mr_status status = demo_archive_read(&archive, mr_str_of(whole->packages), text, err);
    if (status == MR_OK)
        demo_archive_done(&archive);
    return status;
}

static mr_status read_vocabulary_of(mr_str text, mr_error *err)
{
    mr_arena arena = {0};
    demo_items items;
    mr_status status =
        demo_items_build(&items, &whole->archive, &whole->components, text, NULL, &arena, err);
    if (status == MR_OK)
        demo_items_done(&items);
    mr_arena_done(&arena);
    return status;
}

static mr_status read_sources_of(mr_str text, mr_error *err)
{
    demo_people people;
    mr_status status = demo_people_read(&people, text, &whole->items, err);
    if (status == MR_OK)
        demo_people_done(&people);
    return status;
}

/* A file that was cut anywhere is read up to the cut or refused; nothing is read behind it. */
static void cut_files_are_refused_or_end_early(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        read_function read;
    } row[] = {
        {"data/debian-fixture/Packages", read_packages_of},
        {"data/debian-fixture/Components.yml", read_components_of},
        {"data/debian-fixture/Translation-en", read_translations_of},
        {"data/debian-fixture/vocabulary", read_vocabulary_of},
        {"data/debian-fixture/Sources", read_sources_of},
    };
    for (size_t r = 0; r < COUNT(row); r++) {
        size_t len, refused = 0;
        char *original = test_file_read(row[r].path, &len);
        for (size_t cut = 0; cut < len; cut++) {
            char *text = malloc(cut ? cut : 1);
            assert_non_null(text);
            memcpy(text, original, cut);
            mr_error err = {0};
            mr_status status = row[r].read((mr_str){text, cut}, &err);
            if (status != MR_OK)
                assert_status(status, MR_CORRUPT, &err);
            refused += status != MR_OK;
            free(text);
        }
        assert_in_range(refused, len / 20, len);
        free(original);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_keep_their_continuation_lines),
        cmocka_unit_test(malformed_stanzas_name_file_and_line),
        cmocka_unit_test(a_stanza_is_bounded_in_fields_and_bytes),
        cmocka_unit_test(private_text_is_never_quoted),
        cmocka_unit_test(tag_groups_are_written_out),
        cmocka_unit_test(blank_lines_of_a_description_are_no_words),
        cmocka_unit_test(the_filter_keeps_programs_and_says_no_to_the_rest),
        cmocka_unit_test(package_names_are_checked),
        cmocka_unit_test(the_english_of_a_translated_value_is_taken),
        cmocka_unit_test(malformed_components_name_file_and_line),
        cmocka_unit_test(a_list_of_keywords_is_bounded),
        cmocka_unit_test(memory_of_the_texts_is_bounded),
        cmocka_unit_test(words_are_cut_to_their_stems),
        cmocka_unit_test(search_ranks_and_scores_alike),
        cmocka_unit_test(ndcg_follows_its_definition),
        cmocka_unit_test_setup_teardown(cut_files_are_refused_or_end_early, open_fixture,
                                        close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
