/** For threads whose work nobody waits for. */
import os from "node:os";

/** How far: about a third of a share when all want to run. */
const NICENESS = 5;

/** The calling thread steps back behind those that serve, where the system lets it: so on a full machine requests go first. */
export function stepBack(): void {
  // On Linux a priority belongs to the thread that sets it; elsewhere it would be that of the whole process.
  if (process.platform !== "linux") return;
  try {
    os.setPriority(os.getPriority() + NICENESS);
  } catch {
    // A process that is that far back already stays where it is.
  }
}
