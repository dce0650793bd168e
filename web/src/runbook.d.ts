/** What an operator does about each refusal: the table of docs/operations.md, read by the build. */
declare module "runbook" {
  export const RUNBOOK: Readonly<Record<string, string>>;
}
