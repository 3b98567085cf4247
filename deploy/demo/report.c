/* report.c - see report.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "deploy/demo/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CUT           10
#define DEEP          100
#define HISTORY_WORDS 40

static double gain(int grade)
{
    return exp2(grade) - 1;
}

static int compare_grades_down(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

double demo_ndcg(const int *grade, const size_t *order, size_t n, size_t cut)
{
    double found = 0, ideal = 0;
    int best[CUT] = {0};
    size_t n_best = 0;
    for (size_t i = 0; i < n; i++) {
        if (i < cut)
            found += gain(grade[order[i]]) / log2((double)i + 2);
        /* The ideal order needs the highest `cut` grades only. */
        if (n_best < CUT) {
            best[n_best++] = grade[i];
        } else if (grade[i] > best[CUT - 1]) {
            best[CUT - 1] = grade[i];
        } else {
            continue;
        }
        qsort(best, n_best, sizeof *best, compare_grades_down);
    }
    for (size_t i = 0; i < n_best && i < cut; i++)
        ideal += gain(best[i]) / log2((double)i + 2);
    return ideal > 0 ? found / ideal : 0;
}

/* Indexes by descending score; order[] comes shuffled, and the sort keeps that order of equals. */
static void sort_by_score(size_t *order, size_t n, const double *score)
{
    for (size_t i = 1; i < n; i++) {
        size_t moved = order[i];
        size_t at = i;
        for (; at > 0 && score[order[at - 1]] < score[moved]; at--)
            order[at] = order[at - 1];
        order[at] = moved;
    }
}

/* The basket's most telling words: each item counts a word once, rare words count more. */
static demo_terms history_terms(demo_bm25 *index, const demo_ids *history, double *weight)
{
    demo_terms best = {.n = 0};
    for (size_t h = 0; h < history->n; h++) {
        size_t begin = index->doc_first[history->id[h]], end = index->doc_first[history->id[h] + 1];
        for (size_t i = begin; i < end; i++) {
            uint32_t term = index->token.id[i];
            size_t earlier = begin;
            while (earlier < i && index->token.id[earlier] != term)
                earlier++;
            if (earlier == i)
                weight[term] += demo_bm25_idf(index, term);
        }
    }
    for (size_t h = 0; h < history->n; h++) {
        size_t begin = index->doc_first[history->id[h]], end = index->doc_first[history->id[h] + 1];
        for (size_t i = begin; i < end; i++) {
            uint32_t term = index->token.id[i];
            size_t at = best.n;
            bool there = weight[term] == 0;
            while (at > 0 && weight[best.term[at - 1]] < weight[term])
                at--;
            for (size_t k = 0; k < best.n && !there; k++)
                there = best.term[k] == term;
            if (there || at == HISTORY_WORDS)
                continue;
            if (best.n < HISTORY_WORDS)
                best.n++;
            memmove(best.term + at + 1, best.term + at, (best.n - 1 - at) * sizeof *best.term);
            best.term[at] = term;
        }
    }
    for (size_t k = 0; k < best.n; k++)
        best.count[k] = 1;
    for (size_t h = 0; h < history->n; h++)
        for (size_t i = index->doc_first[history->id[h]]; i < index->doc_first[history->id[h] + 1];
             i++)
            weight[index->token.id[i]] = 0;
    return best;
}

static mr_status reserve(demo_report *report, size_t n, mr_error *err)
{
    if (n <= report->capacity)
        return MR_OK;
    double *score = realloc(report->score, n * sizeof *score);
    if (score)
        report->score = score;
    size_t *order = realloc(report->order, n * sizeof *order);
    if (order)
        report->order = order;
    int *grade = realloc(report->grade, n * sizeof *grade);
    if (grade)
        report->grade = grade;
    if (!score || !order || !grade)
        return MR_FAIL(err, NO_MEMORY, "measuring %zu candidates", n);
    report->capacity = n;
    return MR_OK;
}

static int grade_of(const demo_query *query, uint32_t item)
{
    for (size_t i = 0; i < query->relevant->n; i++)
        if (query->relevant->id[i] == item)
            return query->grade[i];
    return 0;
}

static mr_status score_candidates(demo_report *report, const demo_query *query, double *scores,
                                  mr_error *err)
{
    demo_bm25 *index = query->task == DEMO_C ? report->detail : report->full;
    demo_terms terms;
    if (query->text.len) {
        terms = demo_terms_of(index, query->text);
    } else {
        double *weight = calloc(index->terms.n + 1, sizeof *weight);
        if (!weight)
            return MR_FAIL(err, NO_MEMORY, "weights of %zu words", index->terms.n);
        terms = history_terms(index, query->history, weight);
        free(weight);
    }
    return demo_bm25_score(index, &terms, query->candidates->id, query->candidates->n, scores, err);
}

static mr_status measure_candidates(demo_report *report, const demo_query *query, demo_figures *out,
                                    mr_error *err)
{
    size_t n = query->candidates->n;
    mr_status status = reserve(report, n, err);
    if (status == MR_OK)
        status = score_candidates(report, query, report->score, err);
    if (status != MR_OK)
        return status;

    int highest = 0;
    for (size_t i = 0; i < n; i++) {
        report->order[i] = i; /* candidates come shuffled */
        report->grade[i] = grade_of(query, query->candidates->id[i]);
        highest = report->grade[i] > highest ? report->grade[i] : highest;
    }
    out->random_ndcg = demo_ndcg(report->grade, report->order, n, CUT);
    sort_by_score(report->order, n, report->score);
    out->ndcg = demo_ndcg(report->grade, report->order, n, CUT);
    for (size_t i = 0; i < n && out->reciprocal_rank == 0; i++)
        if (report->grade[report->order[i]] == highest)
            out->reciprocal_rank = 1 / ((double)i + 1);
    return MR_OK;
}

static mr_status measure_catalogue(demo_report *report, const demo_query *query, demo_figures *out,
                                   mr_error *err)
{
    demo_bm25 *index = query->task == DEMO_C_ALL ? report->detail : report->full;
    demo_terms terms = demo_terms_of(index, query->text);
    uint32_t top[DEEP + 1];
    size_t n = 0;
    mr_status status = demo_bm25_top(index, &terms, NULL, DEEP, top, &n, err);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        if (grade_of(query, top[i]) > 0) {
            out->ndcg = 1; /* found at all */
            out->reciprocal_rank = 1 / ((double)i + 1);
            break;
        }
    }
    return status;
}

static mr_status report_put(demo_sink *sink, const demo_query *query, mr_error *err)
{
    demo_report *report = (demo_report *)sink;
    demo_figures one = {.n = 1};
    mr_status status = query->candidates ? measure_candidates(report, query, &one, err)
                                         : measure_catalogue(report, query, &one, err);
    if (status != MR_OK)
        return status;
    for (int test = 0; test < 2; test++) {
        if (test && query->split != DEMO_TEST)
            continue;
        demo_figures *sum = &report->figures[query->task][test];
        sum->n++;
        sum->ndcg += one.ndcg;
        sum->reciprocal_rank += one.reciprocal_rank;
        sum->random_ndcg += one.random_ndcg;
    }
    return report->next ? report->next->put(report->next, query, err) : MR_OK;
}

void demo_report_init(demo_report *out, const demo_items *items, demo_bm25 *full, demo_bm25 *detail,
                      demo_sink *next)
{
    *out = (demo_report){
        .sink = {report_put}, .next = next, .items = items, .full = full, .detail = detail};
}

void demo_report_done(demo_report *report)
{
    free(report->score);
    free(report->order);
    free(report->grade);
    *report = (demo_report){0};
}

/* --- the printed page ------------------------------------------------------------------------ */

static void print_people(const demo_people *people, FILE *stream)
{
    static const struct {
        size_t least;
        const char *studied;
    } row[] = {{2, "1303 with 15405 pairs"},
               {5, "686 with 13750"},
               {8, "473 with 12504"},
               {20, "196 with 9194"}};
    for (size_t r = 0; r < sizeof row / sizeof *row; r++) {
        size_t n = 0, pairs = 0, fold[3] = {0};
        for (size_t p = 0; p < people->n; p++) {
            const demo_person *person = &people->person[p];
            if (person->basket.n < row[r].least)
                continue;
            n++;
            pairs += person->basket.n;
            fold[person->fold]++;
        }
        fprintf(stream,
                "people with %2zu items or more  %5zu with %6zu pairs (%zu train, %zu valid, "
                "%zu test; studied: %s)\n",
                row[r].least, n, pairs, fold[DEMO_TRAIN], fold[DEMO_VALID], fold[DEMO_TEST],
                row[r].studied);
    }
}

void demo_report_print(const demo_report *report, const demo_people *people, FILE *stream)
{
    /* What the study of Debian 12.15 found: queries, random NDCG@10, BM25 NDCG@10, BM25 MRR. */
    static const char *const studied[DEMO_TASKS] = {
        [DEMO_E1] = "2473  0.147  0.441  0.125",
        [DEMO_D1] = " 888  0.041  0.337  0.309 (test)",
        [DEMO_C] = "10690  0.045  0.664  0.634",
        [DEMO_C_ALL] = "recall@100 0.902, MRR 0.633",
        [DEMO_B1_ALL] = " 886 recall@100 0.787, MRR 0.431",
        [DEMO_B3] = " 385  0.071  0.551  0.798",
        [DEMO_B4] = "  93  0.106  0.483  0.802",
    };
    size_t test_items = 0, icons = 0;
    for (size_t i = 0; i < report->items->n; i++) {
        test_items += report->items->item[i].fold == DEMO_TEST;
        icons += report->items->item[i].icon.len > 0;
    }
    fprintf(stream,
            "items %zu (%zu train, %zu test), %zu with a picture (studied: 11860 and 1730)\n",
            report->items->n, report->items->n - test_items, test_items, icons);
    print_people(people, stream);
    fprintf(stream,
            "\nBM25 on the query's words; on the history's words where there is no query\n"
            "%-8s %-5s %7s %9s %9s %9s   %s\n",
            "task", "split", "queries", "random", "NDCG@10", "MRR", "studied");
    for (int t = 0; t < DEMO_TASKS; t++) {
        bool whole = t == DEMO_C_ALL || t == DEMO_B1_ALL;
        for (int test = 0; test < 2; test++) {
            const demo_figures *f = &report->figures[t][test];
            if (f->n == 0 || (test && f->n == report->figures[t][0].n))
                continue;
            double n = (double)f->n;
            fprintf(stream, "%-8s %-5s %7zu ", demo_task_name((demo_task)t), test ? "test" : "all",
                    f->n);
            if (whole)
                fprintf(stream, "%9s %9.3f %9.3f   %s\n", "recall@100", f->ndcg / n,
                        f->reciprocal_rank / n, studied[t]);
            else
                fprintf(stream, "%9.3f %9.3f %9.3f   %s\n", f->random_ndcg / n, f->ndcg / n,
                        f->reciprocal_rank / n, !test && studied[t] ? studied[t] : "");
        }
    }
}
