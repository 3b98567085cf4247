/* rank_pass.c - see rank_pass.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/rank_pass.h"

#include <stdlib.h>
#include <string.h>

#include "ranker/model/prompts.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

static mr_status open_projectors(mr_rank_pass *p, size_t max_vectors, mr_error *err)
{
    const mr_trainer *t = p->trainer;
    mr_status status = MR_OK;
    if (p->item_projector->recipe)
        status = mr_projector_train_new_f32(&p->items, &p->item_projector->projector, &t->weights,
                                            t->ops, max_vectors, err);
    if (status == MR_OK && p->user_projector->recipe)
        status = mr_projector_train_new_f32(&p->users, &p->user_projector->projector, &t->weights,
                                            t->ops, max_vectors, err);
    return status;
}

mr_status mr_rank_pass_open(mr_rank_pass *out, const mr_trainer *trainer,
                            const mr_trainer_spec *spec, const mr_trainer_part *llm,
                            const mr_trainer_part *item_projector,
                            const mr_trainer_part *user_projector, const mr_lists *lists,
                            size_t max_lists, mr_error *err)
{
    const size_t candidates = max_lists * (size_t)trainer->recipe->candidates;
    const size_t C = (size_t)llm->decoder.config.C;
    const size_t dim = trainer->encoder.recipe ? (size_t)trainer->encoder.decoder.config.C : C;
    /* Of the vectors that are handed in, whatever this side's own bundle.json says of items. */
    const size_t T = trainer->spec.item_tokens > 0 ? (size_t)trainer->spec.item_tokens : 1;
    const size_t positions = (size_t)llm->decoder.config.max_positions;
    const size_t max_length =
        (size_t)spec->max_length < positions ? (size_t)spec->max_length : positions;
    size_t of_user = T * (size_t)trainer->recipe->history;
    if (of_user < trainer->user.user.config.latents)
        of_user = trainer->user.user.config.latents;
    const size_t max_vectors = candidates * T + max_lists * of_user;
    mr_rank_pass p = {.trainer = trainer,
                      .spec = spec,
                      .llm = llm,
                      .item_projector = item_projector,
                      .user_projector = user_projector,
                      .lists = lists,
                      .max_length = max_length,
                      .max_rows = (max_lists + candidates) * max_length,
                      .max_spans = max_lists + candidates};
    p.ids = calloc(p.max_rows, sizeof *p.ids);
    p.wanted = calloc(p.max_rows, sizeof *p.wanted);
    p.span = calloc(p.max_spans, sizeof *p.span);
    p.vector_item = calloc(max_vectors, sizeof *p.vector_item);
    p.vector_token = calloc(max_vectors, sizeof *p.vector_token);
    p.vector_is_user = calloc(max_vectors, sizeof *p.vector_is_user);
    p.raw_items = calloc(max_vectors * dim, sizeof(float));
    p.raw_users = calloc(max_vectors * dim, sizeof(float));
    p.vectors = calloc(max_vectors * C, sizeof(float));
    p.d_vectors = calloc(max_vectors * C, sizeof(float));
    p.d_part = calloc(max_vectors * C, sizeof(float));
    p.d_raw = calloc(max_vectors * dim, sizeof(float));
    p.first = calloc(max_lists + 1, sizeof *p.first);
    p.margin = calloc(candidates, sizeof(float));
    p.d_margin = calloc(candidates, sizeof(float));
    p.d_out = calloc(candidates * C, sizeof(float));
    mr_status status = MR_OK;
    if (!p.ids || !p.wanted || !p.span || !p.vector_item || !p.vector_token || !p.vector_is_user ||
        !p.raw_items || !p.raw_users || !p.vectors || !p.d_vectors || !p.d_part || !p.d_raw ||
        !p.first || !p.margin || !p.d_margin || !p.d_out)
        status = MR_FAIL(err, NO_MEMORY, "%zu lists of %d candidates", max_lists,
                         trainer->recipe->candidates);
    if (status == MR_OK)
        status = mr_decoder_new_f32(&p.run, &llm->decoder, &trainer->weights, trainer->ops,
                                    p.max_rows, err);
    if (status == MR_OK)
        status = open_projectors(&p, max_vectors, err);
    *out = p;
    if (status != MR_OK)
        mr_rank_pass_close(out);
    return status;
}

mr_status mr_rank_pass_encode_users(mr_rank_pass *p, const mr_trainer_part *user, size_t max_lists,
                                    mr_error *err)
{
    const mr_user_config *config = &user->user.config;
    const size_t C = (size_t)p->llm->decoder.config.C;
    const size_t items = max_lists * mr_trainer_history(p->trainer);
    const size_t rows = items * (size_t)p->trainer->spec.item_tokens;
    if (!p->users && config->C != C)
        return MR_FAIL(err, MISMATCH,
                       "without a part user_projector the width %zu of part 'user' must be the "
                       "llm's, %zu",
                       config->C, C);
    p->user = user;
    p->user_item = calloc(items, sizeof *p->user_item);
    p->user_rows = calloc(max_lists, sizeof *p->user_rows);
    p->user_in = calloc(rows * config->item_dim, sizeof(float));
    p->d_user_in = calloc(rows * config->item_dim, sizeof(float));
    p->d_user_out = calloc(max_lists * config->latents * config->C, sizeof(float));
    if (!p->user_item || !p->user_rows || !p->user_in || !p->d_user_in || !p->d_user_out)
        return MR_FAIL(err, NO_MEMORY, "users of %zu lists", max_lists);
    return mr_user_train_new_f32(&p->user_run, &user->user, &p->trainer->weights, p->trainer->ops,
                                 rows, max_lists, err);
}

void mr_rank_pass_close(mr_rank_pass *p)
{
    mr_user_train_free_f32(p->user_run);
    free(p->user_item);
    free(p->user_rows);
    free(p->user_in);
    free(p->d_user_in);
    free(p->d_user_out);
    mr_decoder_free_f32(p->run);
    mr_projector_train_free_f32(p->items);
    mr_projector_train_free_f32(p->users);
    mr_prompt_release(&p->prefix);
    mr_prompt_release(&p->suffix);
    free(p->ids);
    free(p->wanted);
    free(p->span);
    free(p->vector_item);
    free(p->vector_token);
    free(p->vector_is_user);
    free(p->raw_items);
    free(p->raw_users);
    free(p->vectors);
    free(p->d_vectors);
    free(p->d_part);
    free(p->d_raw);
    free(p->first);
    free(p->margin);
    free(p->d_margin);
    free(p->d_out);
    *p = (mr_rank_pass){0};
}

/* ---- Prompts --------------------------------------------------------------------------------- */

/* Appends a prompt as a span; returns its index. */
static mr_status add_span(mr_rank_pass *p, const mr_prompt *prompt, int64_t parent, bool closing,
                          mr_error *err)
{
    const size_t at = p->pack.rows, n = prompt->ids.n;
    if (n > p->max_rows - at || p->pack.n_spans == p->max_spans)
        return MR_FAIL(err, EXHAUSTED, "prompts of more than %zu tokens", p->max_rows);
    for (size_t i = 0; i < n; i++) {
        const int32_t id = prompt->ids.data[i];
        p->ids[at + i] = id == MR_ID_EMBED ? MR_ROW_VECTOR : id;
        p->wanted[at + i] = false;
    }
    if (closing)
        p->wanted[at + n - 1] = true;
    p->span[p->pack.n_spans++] = (mr_span){at, n, parent};
    p->pack.rows += n;
    return MR_OK;
}

static void add_vectors(mr_rank_pass *p, uint32_t item, bool is_user, size_t T)
{
    for (size_t t = 0; t < T; t++) {
        p->vector_item[p->n_vectors] = item;
        p->vector_token[p->n_vectors] = (uint16_t)t;
        p->vector_is_user[p->n_vectors++] = is_user;
    }
}

/* Appends the vectors that stand for a user. */
static void add_user(mr_rank_pass *p, const mr_rank_list *list, size_t T)
{
    if (!p->user) {
        for (size_t i = 0; i < list->n_history; i++)
            add_vectors(p, list->history[i], true, T);
        return;
    }
    if (list->n_history == 0)
        return;
    memcpy(p->user_item + p->n_user_items, list->history, list->n_history * sizeof *p->user_item);
    p->n_user_items += list->n_history;
    p->user_rows[p->n_users] = T * list->n_history;
    add_vectors(p, (uint32_t)p->n_users++, true, p->user->user.config.latents);
}

static size_t tokens_of_user(const mr_rank_pass *p, const mr_rank_list *list, size_t T)
{
    if (list->n_history == 0 || !mr_template_uses_slot(p->spec->prefix, MR_SLOT_USER))
        return 0;
    return p->user ? p->user->user.config.latents : T * list->n_history;
}

static mr_status add_list(mr_rank_pass *p, const mr_rank_list *list, size_t T, mr_error *err)
{
    const mr_trainer_spec *spec = p->spec;
    const mr_prompt_shape shape = {spec->prefix, spec->suffix, p->max_length, spec->mixed ? T : 0,
                                   0};
    const mr_field query = {mr_str_of("query"), list->query};
    const size_t user_tokens = tokens_of_user(p, list, T);
    const size_t prefix = p->pack.n_spans;
    mr_status status = mr_prompt_expand_prefix(&shape, (mr_fields){&query, list->has_query},
                                               user_tokens, shape.max_length, &p->prefix, err);
    if (status == MR_OK)
        status = add_span(p, &p->prefix, -1, false, err);
    if (status == MR_OK && user_tokens > 0)
        add_user(p, list, T);
    for (size_t i = 0; status == MR_OK && i < list->n; i++) {
        status = mr_prompt_expand_suffix(&shape, mr_lists_item(p->lists, list->item[i])->fields,
                                         shape.item_tokens, 0, p->prefix.ids.n, &p->suffix, err);
        if (status == MR_OK)
            status = add_span(p, &p->suffix, (int64_t)prefix, true, err);
        if (status == MR_OK && spec->mixed)
            add_vectors(p, list->item[i], false, T);
    }
    return status == MR_OK ? status
                           : mr_error_prefix(err, status, "row '%.*s'", MR_STR_ARG(list->id));
}

/* ---- Vectors --------------------------------------------------------------------------------- */

/* Whether vector i goes the users' own way, and not the items'. */
static bool of_users(const mr_rank_pass *p, size_t i)
{
    return (p->users || p->user) && p->vector_is_user[i];
}

static const float *token_of(const mr_rank_pass *p, const mr_item_tokens *tokens, size_t i)
{
    return mr_item_tokens_of(tokens, p->vector_item[i]) + p->vector_token[i] * tokens->dim;
}

/* Puts vectors of users, or all others, where they belong. */
static void place_vectors(mr_rank_pass *p, bool users, const float *from)
{
    const size_t C = (size_t)p->llm->decoder.config.C;
    for (size_t i = 0; i < p->n_vectors; i++) {
        if (of_users(p, i) == users) {
            memcpy(p->vectors + i * C, from, C * sizeof *from);
            from += C;
        }
    }
}

/* The way back of place_vectors: into d_part; returns how many. */
static size_t collect_back(mr_rank_pass *p, bool users)
{
    const size_t C = (size_t)p->llm->decoder.config.C;
    size_t n = 0;
    for (size_t i = 0; i < p->n_vectors; i++)
        if (of_users(p, i) == users)
            memcpy(p->d_part + n++ * C, p->d_vectors + i * C, C * sizeof(float));
    return n;
}

/* Gathers the tokens of one projector's vectors, projects and puts them where they belong. */
static void project(mr_rank_pass *p, const mr_item_tokens *tokens, bool users, float *raw)
{
    const size_t dim = tokens->dim;
    mr_projector_train_f32 *projector = users ? p->users : p->items;
    size_t n = 0;
    for (size_t i = 0; i < p->n_vectors; i++)
        if (of_users(p, i) == users)
            memcpy(raw + n++ * dim, token_of(p, tokens, i), dim * sizeof *raw);
    if (n == 0)
        return;
    place_vectors(p, users,
                  projector ? mr_projector_train_forward_f32(projector, p->trainer->values, raw, n)
                            : raw);
}

/* The same of users that the part `user` makes of their items' tokens. Their vectors are in the
 * order of the users. */
static void encode_users(mr_rank_pass *p, const mr_item_tokens *tokens)
{
    const float *values = p->trainer->values;
    const size_t width = tokens->T * tokens->dim;
    if (p->n_users == 0)
        return;
    for (size_t i = 0; i < p->n_user_items; i++)
        memcpy(p->user_in + i * width, mr_item_tokens_of(tokens, p->user_item[i]),
               width * sizeof(float));
    p->user_out =
        mr_user_train_forward_f32(p->user_run, values, p->user_in, p->user_rows, p->n_users);
    const size_t n = p->n_users * p->user->user.config.latents;
    place_vectors(p, true,
                  p->users ? mr_projector_train_forward_f32(p->users, values, p->user_out, n)
                           : p->user_out);
}

static void encode_users_back(mr_rank_pass *p, const mr_item_tokens *tokens, float *gradients,
                              float *d_tokens)
{
    const float *values = p->trainer->values;
    const size_t width = tokens->T * tokens->dim;
    const bool below = d_tokens || mr_trainer_trains(p->trainer, p->user);
    if (p->n_users == 0)
        return;
    collect_back(p, true);
    const float *d_out = p->d_part;
    if (p->users) {
        mr_projector_train_backward_f32(p->users, values, p->d_part, gradients,
                                        below ? p->d_user_out : NULL);
        d_out = p->d_user_out;
    }
    if (!below)
        return;
    mr_user_train_backward_f32(p->user_run, values, d_out, gradients,
                               d_tokens ? p->d_user_in : NULL);
    for (size_t i = 0; d_tokens && i < p->n_user_items; i++) {
        const size_t at = (size_t)(mr_item_tokens_of(tokens, p->user_item[i]) - tokens->tokens);
        p->trainer->ops->add(d_tokens + at, p->d_user_in + i * width, width);
    }
}

static void project_back(mr_rank_pass *p, const mr_item_tokens *tokens, bool users,
                         float *gradients, float *d_tokens)
{
    const size_t dim = tokens->dim;
    mr_projector_train_f32 *projector = users ? p->users : p->items;
    if (collect_back(p, users) == 0)
        return;
    const float *d_raw = p->d_part;
    if (projector) {
        mr_projector_train_backward_f32(projector, p->trainer->values, p->d_part, gradients,
                                        d_tokens ? p->d_raw : NULL);
        d_raw = p->d_raw;
    }
    for (size_t i = 0; d_tokens && i < p->n_vectors; i++) {
        if (of_users(p, i) != users)
            continue;
        const size_t at = (size_t)(token_of(p, tokens, i) - tokens->tokens);
        p->trainer->ops->add(d_tokens + at, d_raw, dim);
        d_raw += dim;
    }
}

/* ---- Passes ---------------------------------------------------------------------------------- */

mr_status mr_rank_pass_forward(mr_rank_pass *p, const mr_rank_draw *draw,
                               const mr_item_tokens *tokens, mr_error *err)
{
    const mr_model_config *config = &p->llm->decoder.config;
    p->pack = (mr_pack){.ids = p->ids, .span = p->span, .wanted = p->wanted};
    p->n_vectors = p->n_users = p->n_user_items = 0;
    p->n_lists = draw->n_lists;
    p->first[0] = 0;
    for (size_t l = 0; l < draw->n_lists; l++) {
        mr_status status = add_list(p, &draw->list[l], tokens->T, err);
        if (status != MR_OK)
            return status;
        p->first[l + 1] = p->first[l] + draw->list[l].n;
    }
    if (draw->n_lists == 0)
        return MR_OK;
    size_t vectors, wanted;
    mr_status status = mr_pack_check(&p->pack, config, &vectors, &wanted, err);
    if (status == MR_OK && vectors != p->n_vectors)
        status = MR_FAIL(err, INTERNAL, "prompts have %zu slots, the lists %zu embedding tokens",
                         vectors, p->n_vectors);
    if (status != MR_OK)
        return status;
    project(p, tokens, false, p->raw_items);
    if (p->user)
        encode_users(p, tokens);
    else if (p->users)
        project(p, tokens, true, p->raw_users);
    p->out = mr_decoder_forward_f32(p->run, p->trainer->values, &p->pack, p->vectors);
    mr_decoder_margins_f32(p->run, p->trainer->values, p->out, wanted, p->spec->yes, p->spec->no,
                           p->margin);
    return MR_OK;
}

void mr_rank_pass_backward(mr_rank_pass *p, bool with_d_out, const mr_item_tokens *tokens,
                           float *gradients, float *d_tokens)
{
    const size_t C = (size_t)p->llm->decoder.config.C, n = p->first[p->n_lists];
    if (n == 0)
        return;
    float *d_out = p->d_out;
    if (with_d_out) /* the states' own gradient, kept until the margins' is there */
        memcpy(p->d_part, p->d_out, n * C * sizeof(float));
    mr_decoder_margins_back_f32(p->run, p->trainer->values, p->out, n, p->spec->yes, p->spec->no,
                                p->d_margin, d_out, gradients);
    if (with_d_out)
        p->trainer->ops->add(d_out, p->d_part, n * C);
    const bool projectors = p->n_vectors > 0 && (d_tokens || p->items || p->users || p->user);
    mr_decoder_backward_f32(p->run, p->trainer->values, d_out, gradients,
                            projectors ? p->d_vectors : NULL);
    if (!projectors)
        return;
    project_back(p, tokens, false, gradients, d_tokens);
    if (p->user)
        encode_users_back(p, tokens, gradients, d_tokens);
    else if (p->users)
        project_back(p, tokens, true, gradients, d_tokens);
}
