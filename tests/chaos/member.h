/* member.h - a member of the consumer group as a process of its own, which can be killed.
 *
 * A process is this program again (exec): clients of Kafka and stores do not survive a fork. It
 * ends when its parent does.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_CHAOS_MEMBER_H
#define MR_TESTS_CHAOS_MEMBER_H

#include <stdbool.h>
#include <sys/types.h>

/* main() of a member: argv is {program, "--member", brokers, store}. */
int chaos_member_main(int argc, char **argv);

typedef struct {
    pid_t pid; /* 0: none */
} chaos_member;

bool chaos_member_start(chaos_member *member, const char *brokers, const char *store);
void chaos_member_kill(chaos_member *member); /* SIGKILL */
/* SIGTERM; true when it left with exit status 0 within 30 s. */
bool chaos_member_stop(chaos_member *member);
bool chaos_member_died(chaos_member *member); /* by itself; says so on stderr */

#endif
