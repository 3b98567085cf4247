/* rank_print.c - see rank_print.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/rank_print.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/utf8.h"
#include "encoders/template.h"
#include "ranker/cli/command.h"

static void print_place(const mr_rank_output *out, size_t place)
{
    const mr_ranked_item *item = &out->reply->items[place];
    const mr_str id = out->request->candidates[item->index].id;
    const mr_catalogue_item *row = out->catalogue ? mr_catalogue_find(out->catalogue, id) : NULL;
    const mr_str title = row ? mr_fields_get(row->fields, "title") : (mr_str){0};
    if (isnan(item->margin))
        printf("%5zu  %-7s  %9s  %-6s  ", place + 1, "-", "-", mr_source_name(item->source));
    else
        printf("%5zu  %.5f  %9.4f  %-6s  ", place + 1, item->score, item->margin,
               mr_source_name(item->source));
    mr_command_print_text(stdout, id);
    if (title.len && !mr_str_equal(title, id)) {
        fputs("  ", stdout);
        mr_command_print_text(stdout, title);
    }
    if (item->reason != MR_REASON_NONE)
        printf("  (%s)", mr_reason_name(item->reason));
    putchar('\n');
}

void mr_rank_print_table(const mr_rank_output *out)
{
    const mr_rank_reply *reply = out->reply;
    if (out->query_id.len) {
        mr_command_print_text(stdout, out->query_id);
        putchar('\n');
    }
    printf("%5s  %-7s  %9s  %-6s  %s\n", "place", "score", "margin", "source", "item");
    for (size_t i = 0; i < reply->n_items; i++)
        print_place(out, i);
    if (reply->explain) {
        putchar('\n');
        fputs(reply->explain, stdout);
    }
    printf("\n%zu of %zu candidates scored in %.1f ms (%s)\n", reply->n_scored, reply->n_candidates,
           (double)reply->work.total_us / 1e3, mr_bundle_numerics_id(out->bundle));
    if (reply->by_previous) {
        printf("by the previous bundle, ");
        mr_command_print_text(stdout, mr_str_of(reply->bundle_name));
        putchar(' ');
        mr_command_print_text(stdout, mr_str_of(reply->bundle_version));
        putchar('\n');
    }
    for (int reason = 1; reason < MR_REASON_COUNT; reason++)
        if (reply->degraded & 1u << reason)
            printf("degraded: %s\n", mr_reason_name((mr_reason)reason));
    if (mr_bundle_is_untrained(out->bundle))
        puts(MR_UNTRAINED_NOTICE);
}

/* The columns of a run are apart by blanks. */
static mr_status check_trec_id(const char *what, mr_str id, mr_error *err)
{
    const char *why = id.len ? NULL : "is empty";
    for (size_t i = 0, n; !why && i < id.len; i += n) {
        uint32_t code = 0;
        n = mr_utf8_decode(id.data + i, id.len - i, &code);
        if (n == 0)
            why = "is not UTF-8";
        else if (code <= ' ' || (code >= 0x7f && code < 0xa0))
            why = "has a blank or a control character";
    }
    if (!why)
        return MR_OK;
    return MR_FAIL(err, INVALID, "%s '%.*s' %s, which a TREC run cannot hold; --json can", what,
                   MR_STR_ARG(id), why);
}

mr_status mr_rank_print_trec(const mr_rank_output *out, mr_error *err)
{
    const mr_rank_reply *reply = out->reply;
    const mr_candidate *candidates = out->request->candidates;
    const char *tag = mr_bundle_is_untrained(out->bundle) ? "mixrank-untrained" : "mixrank";
    char number[32] = "q";
    mr_str query = out->query_id;
    if (query.len == 0) {
        if (out->line)
            snprintf(number, sizeof number, "q%" PRIu64, out->line);
        query = mr_str_of(number);
    }
    mr_status status = check_trec_id("query id", query, err);
    for (size_t i = 0; status == MR_OK && i < reply->n_items; i++)
        status = check_trec_id("item id", candidates[reply->items[i].index].id, err);
    if (status != MR_OK)
        return status;
    for (size_t i = 0; i < reply->n_items; i++) {
        const mr_str id = candidates[reply->items[i].index].id;
        /* Evaluators sort by score, so the score column must fall with the place. */
        fwrite(query.data, 1, query.len, stdout);
        fputs(" Q0 ", stdout);
        fwrite(id.data, 1, id.len, stdout);
        printf(" %zu %zu %s\n", i + 1, reply->n_items - i, tag);
    }
    return MR_OK;
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *place_json(const mr_rank_output *out, const mr_ranked_item *item)
{
    json_t *row = json_pack("{s:o, s:I, s:o, s:o, s:s}", "id",
                            mr_command_json_text(out->request->candidates[item->index].id), "index",
                            (json_int_t)item->index, "score", real_or_null(item->score), "margin",
                            real_or_null(item->margin), "source", mr_source_name(item->source));
    if (row && item->reason != MR_REASON_NONE)
        json_object_set_new(row, "reason", json_string(mr_reason_name(item->reason)));
    return row;
}

void mr_rank_print_json(const mr_rank_output *out)
{
    const mr_rank_reply *reply = out->reply;
    json_t *items = json_array(), *degraded = json_array();
    for (size_t i = 0; i < reply->n_items; i++)
        json_array_append_new(items, place_json(out, &reply->items[i]));
    for (int reason = 1; reason < MR_REASON_COUNT; reason++)
        if (reply->degraded & 1u << reason)
            json_array_append_new(degraded, json_string(mr_reason_name((mr_reason)reason)));
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:o}", "bundle", reply->bundle_name,
                             "version", reply->bundle_version, "numerics_id",
                             mr_bundle_numerics_id(out->bundle), "candidates",
                             (json_int_t)reply->n_candidates, "scored", (json_int_t)reply->n_scored,
                             "ms", (double)reply->work.total_us / 1e3, "degraded", degraded);
    if (root && reply->by_previous)
        json_object_set_new(root, "by_previous", json_true());
    if (root && reply->work.records_aged) {
        json_object_set_new(root, "oldest_age_ms", json_integer(reply->work.oldest_age_ms));
        json_object_set_new(root, "mean_age_ms", json_integer(reply->work.mean_age_ms));
    }
    json_object_set_new(root, "items", items);
    if (root && out->query_id.len)
        json_object_set_new(root, "id", mr_command_json_text(out->query_id));
    if (root && mr_bundle_is_untrained(out->bundle))
        json_object_set_new(root, "notice", json_string(MR_UNTRAINED_NOTICE));
    if (root && reply->explain_json)
        json_object_set_new(root, "explain", json_loads(reply->explain_json, 0, NULL));
    mr_command_print_json(root);
}
