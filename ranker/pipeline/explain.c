/* explain.c - the prompt as tokens and slots, the work done and saved, and where each place came
 * from, for a person (text) and for a program (JSON).
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "core/utf8.h"
#include "ranker/pipeline/ranking.h"

#define SHOWN_SUFFIXES 3
#define SHOWN_TOKENS   48

static const char *piece_kind_name(const mr_piece *piece)
{
    switch (piece->kind) {
    case MR_PIECE_TEXT: return "text";
    case MR_PIECE_FIELD: return "field";
    case MR_PIECE_TOKEN: return "token";
    case MR_PIECE_SLOT: return "slot";
    case MR_PIECE_JOIN: return "join";
    }
    return "piece";
}

static const char *piece_name(const mr_piece *piece)
{
    if (piece->kind == MR_PIECE_SLOT)
        return mr_slot_name(piece->slot);
    return piece->name ? piece->name : "";
}

/* An id is any bytes, and this goes to a terminal: controls and broken UTF-8 are shown as '?'. */
static void append_clean(mr_strbuf *out, mr_str text)
{
    for (size_t i = 0; i < text.len;) {
        uint32_t code = 0;
        const size_t n = mr_utf8_decode(text.data + i, text.len - i, &code);
        const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
        if (n == 0 || control)
            mr_strbuf_puts(out, "?");
        else
            mr_strbuf_append(out, text.data + i, n);
        i += n ? n : 1;
    }
}

/* Tokens in the vocabulary's spelling, apart by a thin bar, so that every boundary can be seen. */
static void tokens_text(const mr_tokenizer *tokenizer, const int32_t *ids, size_t n, mr_strbuf *out)
{
    const size_t shown = n > SHOWN_TOKENS ? SHOWN_TOKENS : n;
    for (size_t i = 0; i < shown; i++) {
        const char *token = mr_tokenizer_token(tokenizer, ids[i]);
        mr_strbuf_puts(out, i ? "|" : "");
        append_clean(out, mr_str_of(token ? token : "?"));
    }
    if (n > shown)
        mr_strbuf_printf(out, "| ... %zu more", n - shown);
}

static void pieces_text(const mr_ranking *ranking, const mr_prompt *prompt, mr_strbuf *out)
{
    for (size_t i = 0; i < prompt->n_pieces; i++) {
        const mr_piece *piece = &prompt->piece[i];
        mr_strbuf_printf(out, "    %-5s %-12s %4zu  ", piece_kind_name(piece), piece_name(piece),
                         piece->n);
        if (piece->kind == MR_PIECE_SLOT)
            mr_strbuf_printf(out, "embedding token%s", piece->n == 1 ? "" : "s");
        else
            tokens_text(ranking->ranker->bundle->tokenizer, prompt->ids.data + piece->begin,
                        piece->n, out);
        mr_strbuf_puts(out, piece->truncated ? "  (cut)\n" : "\n");
    }
}

static json_t *pieces_json(const mr_ranking *ranking, const mr_prompt *prompt)
{
    json_t *list = json_array();
    for (size_t i = 0; i < prompt->n_pieces; i++) {
        const mr_piece *piece = &prompt->piece[i];
        json_t *tokens = json_array(), *ids = json_array();
        for (size_t k = 0; piece->kind != MR_PIECE_SLOT && k < piece->n; k++) {
            const int32_t id = prompt->ids.data[piece->begin + k];
            const char *token = mr_tokenizer_token(ranking->ranker->bundle->tokenizer, id);
            json_array_append_new(ids, json_integer(id));
            json_array_append_new(tokens, json_string(token ? token : ""));
        }
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I, s:b, s:o, s:o}", "kind",
                                        piece_kind_name(piece), "name", piece_name(piece), "begin",
                                        (json_int_t)piece->begin, "tokens", (json_int_t)piece->n,
                                        "cut", piece->truncated, "ids", ids, "spelling", tokens));
    }
    return list;
}

static void work_text(const mr_rank_work *work, size_t n_scored, mr_strbuf *out)
{
    const uint64_t computed =
        n_scored ? work->prefix_tokens - work->prefix_tokens_cached + work->suffix_tokens : 0;
    const double saved =
        work->tokens_without_sharing
            ? 100.0 * (1.0 - (double)computed / (double)work->tokens_without_sharing)
            : 0.0;
    mr_strbuf_printf(out,
                     "tokens   %llu computed for %zu candidates; one by one they are %llu: %.1f %% "
                     "saved\n",
                     (unsigned long long)computed, n_scored,
                     (unsigned long long)work->tokens_without_sharing, saved);
    mr_strbuf_printf(out,
                     "         %llu from the prefix cache, %llu stopped at keys and values in "
                     "the last layer, %.3f GFLOP\n",
                     (unsigned long long)work->prefix_tokens_cached,
                     (unsigned long long)work->rows_pruned, (double)work->flops * 1e-9);
    mr_strbuf_printf(
        out, "time     fetch %.2f ms, expand %.2f, encode %.2f, project %.2f, forward %.2f\n",
        (double)work->fetch_us / 1e3, (double)work->expand_us / 1e3, (double)work->encode_us / 1e3,
        (double)work->project_us / 1e3, (double)work->forward_us / 1e3);
}

static json_t *work_json(const mr_rank_work *work)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "prefix_tokens",
                     (json_int_t)work->prefix_tokens, "prefix_tokens_cached",
                     (json_int_t)work->prefix_tokens_cached, "suffix_tokens",
                     (json_int_t)work->suffix_tokens, "tokens_without_sharing",
                     (json_int_t)work->tokens_without_sharing, "rows_pruned",
                     (json_int_t)work->rows_pruned, "flops", (json_int_t)work->flops, "fetch_us",
                     (json_int_t)work->fetch_us, "expand_us", (json_int_t)work->expand_us,
                     "encode_us", (json_int_t)work->encode_us, "project_us",
                     (json_int_t)work->project_us, "forward_us", (json_int_t)work->forward_us);
}

/* How many items stand where they stand for which reason. */
static void places_text(const mr_ranking *ranking, mr_strbuf *out)
{
    size_t by_source[MR_SOURCE_COUNT] = {0}, by_reason[MR_REASON_COUNT] = {0};
    for (size_t i = 0; i < ranking->request->n_candidates; i++) {
        const bool scored = !isnan(ranking->keys[i].margin);
        by_source[scored ? ranking->items[i].source : MR_SOURCE_PRIOR]++;
        if (!scored)
            by_reason[ranking->items[i].reason]++;
    }
    mr_strbuf_puts(out, "places  ");
    for (int i = 0; i < MR_SOURCE_COUNT; i++)
        if (by_source[i])
            mr_strbuf_printf(out, " %zu by %s", by_source[i], mr_source_name((mr_source)i));
    for (int i = 1; i < MR_REASON_COUNT; i++)
        if (by_reason[i])
            mr_strbuf_printf(out, ", %zu %s", by_reason[i], mr_reason_name((mr_reason)i));
    mr_strbuf_puts(out, "\n");
    if (ranking->first_error.status != MR_OK)
        mr_strbuf_printf(out, "first    %s\n", ranking->first_error.message);
}

mr_status mr_ranking_explain(mr_ranking *ranking, const size_t *order, mr_arena *out,
                             const char **text, const char **json, mr_error *err)
{
    const size_t n = ranking->request->n_candidates;
    mr_strbuf buf = {0};
    mr_scorer *scorer = ranking->ranker->scorer;
    const mr_prompt *prefix = mr_scorer_prefix_prompt(scorer);

    json_t *suffixes = json_array();
    mr_strbuf_printf(&buf, "prefix   %zu tokens, shared by all candidates\n", prefix->ids.n);
    pieces_text(ranking, prefix, &buf);
    for (size_t place = 0, shown = 0; place < n && shown < SHOWN_SUFFIXES; place++) {
        const size_t i = order[place];
        const mr_prompt *suffix = NULL;
        const mr_ranking_item *item = &ranking->items[i];
        if (isnan(ranking->keys[i].margin) ||
            mr_scorer_suffix_prompt(scorer, item->fields, item->tokens, item->image_tokens, &suffix,
                                    NULL) != MR_OK)
            continue;
        const mr_str id = ranking->request->candidates[i].id;
        mr_strbuf_printf(&buf, "suffix   %zu tokens, candidate %zu '", suffix->ids.n, i);
        append_clean(&buf, id);
        mr_strbuf_puts(&buf, "'\n");
        pieces_text(ranking, suffix, &buf);
        json_array_append_new(suffixes, json_pack("{s:I, s:o}", "candidate", (json_int_t)i,
                                                  "pieces", pieces_json(ranking, suffix)));
        shown++;
    }
    work_text(&ranking->work, ranking->n_scored, &buf);
    places_text(ranking, &buf);

    json_t *root = json_pack(
        "{s:s, s:o, s:o, s:o}", "numerics_id", ranking->ranker->bundle->numerics_id, "prefix",
        pieces_json(ranking, prefix), "suffixes", suffixes, "work", work_json(&ranking->work));
    char *dumped = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    mr_status status = MR_OK;
    if (dumped && buf.data && !buf.failed) {
        *text = mr_arena_strndup(out, buf.data, buf.len);
        *json = mr_arena_strndup(out, dumped, strlen(dumped));
    }
    if (!*text || !*json)
        status = MR_FAIL(err, NO_MEMORY, "the explanation");
    free(dumped);
    mr_strbuf_release(&buf);
    return status;
}
