/* test_rotation.c - which bundle ranks a request, and what a refresh does and leaves alone.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/file.h"
#include "tests/unit/rotation_fixture.h"

/* A store, a rotation over it, a seat; opened is how many bundles were loaded. */
typedef struct {
    const pair *p;
    mr_store *store;
    mr_rotation *rotation;
    mr_seat *seat;
    int opened;
    bool refuse_old; /* the opener has no old bundle */
} stage;

static mr_status count_openings(void *context, const mr_active_bundle *wanted, mr_arena *arena,
                                mr_bundle **bundle, const char **folder, mr_error *err)
{
    stage *s = context;
    (void)arena;
    if (s->refuse_old && strcmp(wanted->version, "1") == 0)
        return MR_FAIL(err, NOT_FOUND, "gone");
    s->opened++;
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = 1;
    *folder = wanted->path;
    return mr_bundle_open(bundle, wanted->path, &options, err);
}

static void begin(stage *s, const pair *p)
{
    mr_rotation_options options = MR_ROTATION_OPTIONS_DEFAULT;
    mr_error err = {0};
    options.opener = count_openings;
    options.context = s;
    s->p = p;
    assert_status(mr_store_open(&s->store, "memory:", NULL, &err), MR_OK, &err);
    assert_status(mr_rotation_new(&s->rotation, s->store, &options, &err), MR_OK, &err);
    assert_status(mr_seat_new(&s->seat, s->rotation, &err), MR_OK, &err);
}

static void end(stage *s)
{
    mr_seat_free(s->seat);
    mr_rotation_free(s->rotation);
    mr_store_close(s->store);
}

static mr_rotation_news refresh(stage *s)
{
    mr_rotation_news news = {0};
    mr_error err = {0};
    assert_status(mr_rotation_refresh(s->rotation, &news, &err), MR_OK, &err);
    return news;
}

/* The first n items by the seat; candidates may be given. */
static mr_rank_reply *rank(stage *s, const mr_candidate *given, size_t n)
{
    mr_candidate candidates[ITEMS] = {{.prior = 0}};
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    for (size_t i = 0; i < n; i++)
        candidates[i].id = mr_str_of(s->p->id[i]);
    const mr_rank_request request = pair_request(0, false, given ? given : candidates, n);
    assert_status(mr_seat_rank(s->seat, &request, &reply, &err), MR_OK, &err);
    return reply;
}

/* All of the reply is the bundle's; `scored` of the first items have its margins. */
static void assert_ranked(stage *s, size_t n, int which, bool by_previous, size_t scored)
{
    mr_rank_reply *reply = rank(s, NULL, n);
    assert_string_equal(reply->bundle_name, "test");
    assert_string_equal(reply->bundle_version, which == OLD ? "1" : "2");
    assert_true(reply->item_space == s->p->bundle[which]->item.space);
    assert_true(reply->user_space == s->p->bundle[which]->user.space);
    assert_true(reply->image_space == 0);
    assert_int_equal(reply->by_previous, by_previous);
    assert_int_equal(reply->n_scored, scored);
    const bool low = by_previous || 2 * scored < n;
    assert_int_equal((reply->degraded >> MR_REASON_LOW_COVERAGE) & 1, low);
    for (size_t place = 0; place < reply->n_items; place++) {
        const mr_ranked_item *item = &reply->items[place];
        if (isnan(item->margin))
            assert_int_equal(item->index, place);
        else
            assert_true(item->margin == s->p->margin[which][0][0][item->index]);
    }
    mr_rank_reply_free(reply);
}

static void without_a_note_there_is_nothing_to_rank_with(void **state)
{
    stage s = {0};
    mr_error err = {0};
    begin(&s, *state);
    assert_status(mr_rotation_refresh(s.rotation, NULL, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "names no active bundle; `mixrank store switch");
    const mr_candidate one = {.id = mr_str_of("i00")};
    const mr_rank_request request = pair_request(0, false, &one, 1);
    mr_rank_reply *reply = NULL;
    assert_status(mr_seat_rank(s.seat, &request, &reply, &err), MR_UNAVAILABLE, &err);
    assert_null(mr_seat_bundle(s.seat));
    assert_int_equal(mr_rotation_generation(s.rotation), 0);
    end(&s);
}

static void a_request_is_ranked_by_one_bundle_and_the_better_covered_one(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    for (size_t i = 0; i < 8; i++)
        put_item(p, s.store, OLD, i);
    switch_to(p, s.store, OLD);
    mr_rotation_news news = refresh(&s);
    assert_true(news.changed && news.generation == 1);
    assert_false(refresh(&s).changed);
    assert_ranked(&s, 8, OLD, false, 8);
    switch_to(p, s.store, NEW);
    assert_ranked(&s, 8, OLD, false, 8); /* not before the refresh */
    assert_true(refresh(&s).changed);
    assert_int_equal(s.opened, 2);
    assert_string_equal(mr_bundle_version(mr_seat_bundle(s.seat)), "2");

    assert_ranked(&s, 8, OLD, true, 8);
    for (size_t i = 0; i < 3; i++)
        put_item(p, s.store, NEW, i);
    assert_ranked(&s, 8, OLD, true, 8);
    put_item(p, s.store, NEW, 3); /* half of them */
    assert_ranked(&s, 8, NEW, false, 4);
    assert_ranked(&s, 9, OLD, true, 8);
    for (size_t i = 8; i < 12; i++)
        put_item(p, s.store, NEW, i);
    assert_ranked(&s, 19, NEW, false, 8); /* as few as the previous one */
    end(&s);
}

static void a_previous_bundle_that_covers_no_more_is_not_used(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    switch_to(p, s.store, OLD);
    switch_to(p, s.store, NEW);
    refresh(&s);
    assert_ranked(&s, 8, NEW, false, 0);
    put_item(p, s.store, OLD, 0);
    put_item(p, s.store, NEW, 1);
    assert_ranked(&s, 8, NEW, false, 1); /* one each */
    put_item(p, s.store, OLD, 2);
    assert_ranked(&s, 8, OLD, true, 2);
    end(&s);
}

static void vectors_that_came_along_stay_with_the_active_bundle(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    for (size_t i = 0; i < 8; i++)
        put_item(p, s.store, OLD, i);
    switch_to(p, s.store, OLD);
    switch_to(p, s.store, NEW);
    refresh(&s);
    mr_candidate candidates[8] = {{.prior = 0}};
    for (size_t i = 0; i < 8; i++)
        candidates[i].id = mr_str_of(p->id[i]);
    candidates[5] = (mr_candidate){.vectors = p->vectors[NEW] + 5 * DIM, .tokens = 1, .dim = DIM};
    mr_rank_reply *reply = rank(&s, candidates, 8);
    assert_string_equal(reply->bundle_version, "2");
    assert_int_equal(reply->n_scored, 1);
    assert_true(reply->items[5].margin == p->margin[NEW][0][0][5]);
    mr_rank_reply_free(reply);
    end(&s);
}

static void without_time_the_previous_bundle_is_not_asked(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    put_item(p, s.store, OLD, 0);
    switch_to(p, s.store, OLD);
    switch_to(p, s.store, NEW);
    refresh(&s);
    const mr_candidate one = {.id = mr_str_of(p->id[0])};
    mr_rank_request request = pair_request(0, false, &one, 1);
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    request.deadline_us = mr_clock_monotonic_us() - 1;
    assert_status(mr_seat_rank(s.seat, &request, &reply, &err), MR_OK, &err);
    assert_string_equal(reply->bundle_version, "2");
    mr_rank_reply_free(reply);
    request.deadline_us = mr_clock_monotonic_us() + 60000000;
    assert_status(mr_seat_rank(s.seat, &request, &reply, &err), MR_OK, &err);
    assert_string_equal(reply->bundle_version, "1");
    mr_rank_reply_free(reply);
    end(&s);
}

static void a_callers_mistake_is_one_under_either_bundle(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    switch_to(p, s.store, OLD);
    switch_to(p, s.store, NEW);
    refresh(&s);
    mr_rank_request request = pair_request(0, false, NULL, 0);
    mr_rank_reply *reply = NULL;
    mr_error err = {0};
    assert_status(mr_seat_rank(s.seat, &request, &reply, &err), MR_INVALID, &err);
    assert_contains(err.message, "no candidates");
    end(&s);
}

static void a_roll_back_loads_nothing(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    for (size_t i = 0; i < 4; i++) {
        put_item(p, s.store, OLD, i);
        put_item(p, s.store, NEW, i);
    }
    switch_to(p, s.store, OLD);
    refresh(&s);
    switch_to(p, s.store, NEW);
    refresh(&s);
    assert_ranked(&s, 4, NEW, false, 4);
    roll_back(s.store);
    assert_true(refresh(&s).generation == 3);
    assert_ranked(&s, 4, OLD, false, 4);
    roll_back(s.store);
    refresh(&s);
    assert_ranked(&s, 4, NEW, false, 4);
    assert_int_equal(s.opened, 2);
    end(&s);
}

static void a_reply_outlives_its_bundle_and_its_rotation(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    put_item(p, s.store, OLD, 0);
    switch_to(p, s.store, OLD);
    refresh(&s);
    mr_rank_reply *reply = rank(&s, NULL, 1);
    end(&s);
    assert_string_equal(reply->bundle_name, "test");
    assert_string_equal(reply->bundle_version, "1");
    mr_rank_reply_free(reply);
}

static void one_started_late_has_the_previous_bundle_too_if_it_is_there(void **state)
{
    const pair *p = *state;
    for (int refused = 0; refused < 2; refused++) {
        stage s = {.refuse_old = refused};
        begin(&s, p);
        put_item(p, s.store, OLD, 0);
        switch_to(p, s.store, OLD);
        switch_to(p, s.store, NEW);
        const mr_rotation_news news = refresh(&s);
        assert_true(news.generation == 2);
        assert_int_equal(news.previous_error.status, refused ? MR_NOT_FOUND : MR_OK);
        if (refused)
            assert_contains(news.previous_error.message, "bundle test 1: gone");
        assert_ranked(&s, 1, refused ? NEW : OLD, !refused, !refused);
        end(&s);
    }
}

/* ---- refreshes that fail --------------------------------------------------------------------- */

static void assert_refresh_fails(stage *s, mr_status status, const char *message)
{
    mr_rotation_news news = {.generation = 77};
    mr_error err = {0};
    assert_status(mr_rotation_refresh(s->rotation, &news, &err), status, &err);
    assert_contains(err.message, message);
    assert_true(news.generation == 77);
    assert_true(mr_rotation_generation(s->rotation) == 1);
    assert_ranked(s, 1, OLD, false, 1);
}

static void write_note(stage *s, const char *text)
{
    mr_error err = {0};
    assert_status(mr_store_set_note(s->store, MR_ACTIVE_NOTE, mr_str_of(text), &err), MR_OK, &err);
}

static void what_cannot_be_used_leaves_all_as_it_was(void **state)
{
    const pair *p = *state;
    static const struct {
        const char *edit[2]; /* in the note: what becomes what */
        mr_status status;
        const char *message;
    } row[] = {
        {{"\"format\":1", "\"format\":2"}, MR_UNSUPPORTED, "has format 2, this program knows 1"},
        {{"\"generation\":2", "\"generation\":0"}, MR_CORRUPT, "'generation'"},
        {{"\"generation\":2", "\"generation\":\"2\""}, MR_CORRUPT, "'generation'"},
        {{"\"name\":\"test\"", "\"name\":null"}, MR_CORRUPT, "'name'"},
        {{"\"digest\":\"", "\"digest\":\"x"}, MR_CORRUPT, "expected 64 hex digits"},
        {{"\"item_space\":\"", "\"item_space\":\"Z"}, MR_CORRUPT, "Z"},
        {{"/2\"", "/3\""}, MR_NOT_FOUND, "active bundle test 2: "},
        {{"/2\"", "/1\""}, MR_MISMATCH, "another bundle lies there, or it was changed"},
        {{"}", "]"}, MR_CORRUPT, "note 'active'"},
    };
    stage s = {0};
    char *note = NULL;
    size_t len = 0;
    mr_error err = {0};
    begin(&s, p);
    put_item(p, s.store, OLD, 0);
    put_item(p, s.store, NEW, 0);
    switch_to(p, s.store, OLD);
    refresh(&s);
    switch_to(p, s.store, NEW);
    assert_status(mr_store_get_note(s.store, MR_ACTIVE_NOTE, &note, &len, &err), MR_OK, &err);
    for (size_t i = 0; i < COUNT(row); i++) {
        char edited[8192];
        const char *at = strstr(note, row[i].edit[0]);
        assert_non_null(at);
        snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - note), note, row[i].edit[1],
                 at + strlen(row[i].edit[0]));
        write_note(&s, edited);
        assert_refresh_fails(&s, row[i].status, row[i].message);
    }
    write_note(&s, note);
    assert_true(refresh(&s).generation == 2);
    assert_ranked(&s, 1, NEW, false, 1);
    free(note);
    end(&s);
}

static void a_bundle_whose_golden_requests_fail_is_not_taken(void **state)
{
    const pair *p = *state;
    stage s = {0};
    mr_error err = {0};
    begin(&s, p);
    put_item(p, s.store, OLD, 0);
    switch_to(p, s.store, OLD);
    refresh(&s);
    /* A third bundle: its golden margins are right when it is made, and wrong afterwards. */
    char path[4096];
    snprintf(path, sizeof path, "%s", test_path(p->folder, "bad"));
    json_t *spec = test_mixed_spec(2);
    json_object_set_new(spec, "version", json_string("3"));
    assert_status(test_bundle_make(path, spec, NULL, &err), MR_OK, &err);
    assert_status(mr_bundle_write_golden(path, NULL, 2, 1, &err), MR_OK, &err);
    json_t *golden = NULL;
    const char *file = test_path(path, "golden.json");
    assert_status(mr_json_load_file(&golden, file, MR_JSON_MAX_CONFIG, &err), MR_OK, &err);
    json_t *request = json_array_get(json_object_get(golden, "requests"), 0);
    json_array_set_new(json_object_get(request, "margins"), 0, json_real(1000));
    assert_status(mr_json_save_file(golden, file, &err), MR_OK, &err);
    json_decref(golden);
    mr_bundle *bundle = NULL;
    const mr_bundle_options skip = {.size = sizeof skip, .threads = 1, .skip_golden = true};
    assert_status(mr_bundle_open(&bundle, path, &skip, &err), MR_OK, &err);
    mr_arena arena = {0};
    mr_active now;
    mr_active_bundle next;
    assert_status(mr_active_read(s.store, &arena, &now, &err), MR_OK, &err);
    assert_status(mr_active_describe(bundle, path, &arena, &next, &err), MR_OK, &err);
    assert_status(mr_active_switch(s.store, &now, &next, &err), MR_OK, &err);
    mr_bundle_close(bundle);
    mr_arena_done(&arena);
    assert_refresh_fails(&s, MR_MISMATCH, "golden");
    end(&s);
}

/* ---- age ------------------------------------------------------------------------------------- */

static void put_at(stage *s, size_t i, int64_t event_ms)
{
    const uint64_t space = s->p->bundle[OLD]->item.space;
    const mr_record_info info = {.dtype = MR_RECORD_F32,
                                 .version = 5,
                                 .space = space,
                                 .event_ms = event_ms,
                                 .tokens = 1,
                                 .dim = DIM};
    mr_error err = {0};
    char record[MR_RECORD_HEADER_BYTES + 4 * DIM];
    assert_status(mr_record_encode(&info, s->p->vectors[OLD] + i * DIM, record, &err), MR_OK, &err);
    const mr_store_put_item item = {mr_str_of(s->p->id[i]), {record, sizeof record}};
    assert_status(mr_store_put(s->store, MR_ENTITY_ITEM, space, &item, 1, NULL, &err), MR_OK, &err);
}

static void a_reply_says_how_old_its_records_were(void **state)
{
    const pair *p = *state;
    stage s = {0};
    begin(&s, p);
    switch_to(p, s.store, OLD);
    refresh(&s);
    put_item(p, s.store, OLD, 0); /* without a time */
    mr_rank_reply *reply = rank(&s, NULL, 2);
    assert_int_equal(reply->work.records_aged, 0);
    assert_int_equal(reply->work.oldest_age_ms, 0);
    assert_int_equal(reply->work.mean_age_ms, 0);
    mr_rank_reply_free(reply);
    const int64_t now = mr_clock_wall_ms();
    put_at(&s, 1, now - 10000);
    put_at(&s, 2, now - 50000);
    put_at(&s, 3, now + 3600000); /* another clock is ahead: 0 old */
    reply = rank(&s, NULL, 5);
    const mr_rank_work *work = &reply->work;
    const int64_t later = mr_clock_wall_ms() - now;
    assert_int_equal(work->records_aged, 3);
    assert_true(work->oldest_age_ms >= 50000 && work->oldest_age_ms <= 50000 + later);
    assert_true(work->mean_age_ms >= 20000 && work->mean_age_ms <= 20000 + later);
    mr_rank_reply_free(reply);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_note_there_is_nothing_to_rank_with),
        cmocka_unit_test(a_request_is_ranked_by_one_bundle_and_the_better_covered_one),
        cmocka_unit_test(a_previous_bundle_that_covers_no_more_is_not_used),
        cmocka_unit_test(vectors_that_came_along_stay_with_the_active_bundle),
        cmocka_unit_test(without_time_the_previous_bundle_is_not_asked),
        cmocka_unit_test(a_callers_mistake_is_one_under_either_bundle),
        cmocka_unit_test(a_roll_back_loads_nothing),
        cmocka_unit_test(a_reply_outlives_its_bundle_and_its_rotation),
        cmocka_unit_test(one_started_late_has_the_previous_bundle_too_if_it_is_there),
        cmocka_unit_test(what_cannot_be_used_leaves_all_as_it_was),
        cmocka_unit_test(a_bundle_whose_golden_requests_fail_is_not_taken),
        cmocka_unit_test(a_reply_says_how_old_its_records_were),
    };
    return cmocka_run_group_tests(tests, pair_set_up, pair_tear_down);
}
