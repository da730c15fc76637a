// The bench's load generator, a process of its own: takes a job as JSON in its first argument, prints its findings as
// JSON, and says what it cost itself. See jobs.mjs for the kinds of jobs.
//
//   node bench/generator/main.mjs '{"kind":"unary","endpoints":[{"host":"127.0.0.1","port":2379}],"connections":10,
//      "streams":10,"seconds":3,"operations":[{"name":"put","keys":100000,"valueBytes":300}]}'
import { jobs } from "./jobs.mjs";

const job = JSON.parse(process.argv[2]);
const run = jobs[job.kind];
if (!run) throw new Error(`no job is called ${job.kind}; there are ${Object.keys(jobs).join(", ")}`);
const result = await run(job);
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
