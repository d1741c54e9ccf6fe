// pg-boss: jobs in a table of its own, claimed by workers that poll.

"use strict";

const { PgBoss } = require("pg-boss");
const {
  DATABASE_URL, DIRECT_URL, LEASE_S, POLL_S, CONCURRENCY, ATTEMPTS, CRON_S, PAYLOAD, ...effects
} = require("effects.cjs");

const JOBS = "jobs";
const APPROVALS = "approvals";
const LISTENS = process.env.LISTEN === "on";
// an id that follows from the key makes a second `send` of the same job change nothing
const idOf = (key) => `00000000-0000-4000-8000-${String(key).padStart(12, "0")}`;
const dataOf = (key) => ({ key, ...PAYLOAD });
// the number of the cron window that a job of a schedule is for
const windowOf = (job) => Math.floor(new Date(job.singletonOn ?? job.createdOn) / 1000 / CRON_S);

const commands = {
  async install(boss) {
    await boss.createQueue(APPROVALS);
    await boss.createQueue(JOBS, {
      retryLimit: ATTEMPTS - 1,
      retryDelay: 1,
      heartbeatSeconds: LEASE_S, // workers renew it for each job that they run; 10 is the least
      notify: LISTENS,
    });
  },

  async enqueue(boss, first, last) {
    for (let key = first; key <= last; key++) {
      await boss.send(JOBS, dataOf(key), { id: idOf(key) });
      await effects.enqueued(key);
    }
  },

  async work(boss) {
    // each of the local workers waits for so long between two jobs, too, unless a notification wakes it
    const poll = LISTENS ? { notifyPollingIntervalSeconds: POLL_S } : { pollingIntervalSeconds: POLL_S };
    const options = { localConcurrency: CONCURRENCY, includeMetadata: true, ...poll };
    await boss.work(JOBS, options, async ([job]) => {
      const { key, scheduled, ...payload } = job.data;
      const attempt = scheduled ? windowOf(job) : job.retryCount + 1;
      await effects.perform(key, { attempt, job: job.id, payload });
    });
    for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => boss.stop().then(() => process.exit(0)));
    await new Promise(() => {});
  },

  async cancel(boss, key) {
    await boss.cancel(JOBS, idOf(key));
  },

  // a job waits for an approval: a job of a queue that no worker works on
  async waiting(boss, key) {
    await boss.flow([
      { ref: "approval", name: APPROVALS, data: { key }, options: { id: idOf(key) } },
      { ref: "job", name: JOBS, data: dataOf(key), options: { id: idOf(key) }, dependsOn: ["approval"] },
    ]);
    await effects.enqueued(key);
    await effects.report(key, "waiting", { job: idOf(key) });
  },

  async approve(boss, key) {
    await boss.complete(APPROVALS, idOf(key), null, { includeQueued: true });
  },

  async schedule(boss, key) {
    await boss.schedule(JOBS, "* * * * *", { ...dataOf(key), scheduled: true });
  },

  // a job that depends on others runs after them
  async children(boss, key, first, last) {
    const keys = Array.from({ length: last - first + 1 }, (_, place) => first + place);
    const job = (one, dependsOn) => ({
      ref: `job-${one}`, name: JOBS, data: dataOf(one), options: { id: idOf(one) }, dependsOn,
    });
    await boss.flow([...keys.map((child) => job(child)), job(key, keys.map((child) => `job-${child}`))]);
    await effects.enqueued(key, ...keys);
  },

  async in_transaction(boss, lost, kept) {
    await effects.through(DATABASE_URL, async (client) => {
      const db = { executeSql: (text, values) => client.query(text, values) };
      for (const [key, end] of [[lost, "ROLLBACK"], [kept, "COMMIT"]]) {
        await client.query("BEGIN");
        await boss.send(JOBS, dataOf(key), { id: idOf(key), db });
        await client.query(end);
      }
    });
    await effects.enqueued(kept);
  },
};

async function main([command, ...keys]) {
  const works = command === "work";
  const boss = new PgBoss({
    connectionString: works && process.env.WORK === "direct" ? DIRECT_URL : DATABASE_URL,
    // connections of this process; 10 by default, and each keeps a server connection in session mode
    max: Number(process.env.POOL ?? 10),
    // a program that only enqueues leaves maintenance and cron to the workers
    supervise: works,
    schedule: works,
    useListenNotify: works && LISTENS,
    // how soon expired jobs, dependent jobs and cron windows are noticed: shorter than by default
    superviseIntervalSeconds: 1,
    monitorIntervalSeconds: 1,
    flowIntervalSeconds: 1,
    cronMonitorIntervalSeconds: 1,
    cronWorkerIntervalSeconds: 1,
  });
  boss.on("error", (error) => console.error(`error: ${error.message} (${error.code})`));
  boss.on("warning", (warning) => console.error(`warning: ${warning.message}`));
  await boss.start();
  await commands[command](boss, ...keys.map(Number));
  await boss.stop();
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(`code: '${error.code}'\n${error.message}`);
    process.exit(1);
  },
);
