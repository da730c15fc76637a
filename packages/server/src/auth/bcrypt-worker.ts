/** A thread that hashes and compares passwords, one after the other: bcrypt is slow on purpose. See passwords.ts. */
import { parentPort } from "node:worker_threads";
import bcrypt from "bcryptjs";
import type { PasswordJob, PasswordResult } from "./passwords.ts";

parentPort?.on("message", ({ id, job }: { id: number; job: PasswordJob }) => {
  let result: PasswordResult;
  try {
    result = job.kind === "hash" ? bcrypt.hashSync(job.password, job.salt) : bcrypt.compareSync(job.password, job.hash);
  } catch {
    // A stored text that is none of bcrypt's fits no password.
    result = false;
  }
  parentPort?.postMessage({ id, result });
});
