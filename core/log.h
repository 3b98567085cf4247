/* log.h - one structured line per event on standard error. Programs log; libraries return errors.
 *
 *     mr_log(MR_LOG_WARN, "store", "record dropped", "key", key, "reason", err.message, NULL);
 *
 * Text form for people (the default), JSON lines for machines:
 *     2026-01-31T12:00:00.000Z warn  store: record dropped key=items:7 reason="malformed record"
 *     {"ts":"2026-01-31T12:00:00.000Z","level":"warn","component":"store","event":"record dropped",
 *      "key":"items:7","reason":"malformed record"}
 * Values are strings; a NULL key ends the list, and so does a NULL value (written as null). Values
 * may hold anything: controls are escaped, broken UTF-8 is replaced. Component, event and keys are
 * ours. Never log a user's id or a query's text at level info or above. The minimum is info.
 * Threads: any; a line is written whole.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_CORE_LOG_H
#define MR_CORE_LOG_H

typedef enum { MR_LOG_DEBUG, MR_LOG_INFO, MR_LOG_WARN, MR_LOG_ERROR } mr_log_level;

void mr_log_set_level(mr_log_level minimum);
void mr_log_set_json(int on);
void mr_log(mr_log_level level, const char *component, const char *event, ... /* pairs, NULL */);

#endif
