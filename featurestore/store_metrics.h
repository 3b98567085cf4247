/* store_metrics.h - a store's health as metrics: mixrank_store_*, all with the label backend.
 *
 *   fetches_total, ids_total                   fetches, and ids asked for
 *   records_total{tier,result}                 where they came from: tier cache or store; result
 *                                              hit, stale (cache: old, or its server gone), none
 *   round_trip_seconds                         histogram of the server's answers to fetches
 *   failures_total, reconnects_total           fetches and puts without an answer
 *   breaker_state                              0 closed, 1 half open, 2 open
 *   connected, tracking                        1 or 0: every server; changes are told
 *   cache_bytes, evictions_total, invalidations_total, flushes_total
 *   foreign_values_total                       values under our keys that are none of ours
 *
 * Only a store with a server or a cache counts; of memory and LMDB the series stay 0.
 * Threads: as the registry's and the store's.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_STORE_METRICS_H
#define MR_FEATURESTORE_STORE_METRICS_H

#include "core/metrics.h"
#include "featurestore/store.h"

typedef struct mr_store_metrics mr_store_metrics;

/* Reads the store's health at each write of the registry. store and metrics are borrowed until the
 * free, which comes before theirs. metrics may be NULL. Two stores of one back end would write over
 * each other: one of them per registry. */
MR_NODISCARD mr_status mr_store_metrics_new(mr_store_metrics **out, mr_store *store,
                                            mr_metrics *metrics, mr_error *err);
void mr_store_metrics_free(mr_store_metrics *store_metrics); /* NULL is fine */

#endif
